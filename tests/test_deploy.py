"""What is in `deploy/`: each file is read by what it is for, or by a linter of its format.

No image is built and no cluster is run here: Dockerfile, compose file and manifests are linted, and the
commands in them that can be run are run. nginx is in `process/test_nginx.py` and `e2e/test_nginx.py`.
"""

import http.client
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.nginx import DEPLOY as NGINX
from support.proxy import running_proxy
from visa_jupyter_proxy import settings
from visa_jupyter_proxy.metrics import METRICS

_ROOT = Path(__file__).parent.parent
_DEPLOY = _ROOT / "deploy"
_BIN = Path(sys.executable).parent
_ROUTE = {"match": r"^/x/(\d+)", "type": "service", "name": "X", "remotePort": 80}


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- linters of our own environment
        command, capture_output=True, text=True, check=False, env=os.environ | variables
    )


def _unknown(variables: dict[str, str]) -> set[str]:
    """Give those of our prefix that are no setting."""
    ours = {name.removeprefix(settings.PREFIX) for name in variables if name.startswith(settings.PREFIX)}
    known = {name.upper() for name in settings.FIELDS}
    return ours - known - {f"{name}_FILE" for name in known}


class TestDockerfile:
    """The image: small, without a compiler and without rights."""

    TEXT = (_DEPLOY / "Dockerfile").read_text()
    STAGES = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]

    def test_it_is_linted(self) -> None:
        """By hadolint, with all its rules."""
        done = _run(_BIN / "hadolint", "--no-color", _DEPLOY / "Dockerfile")
        assert (0, "") == (done.returncode, done.stdout)

    def test_all_that_is_copied_is_there(self) -> None:
        """In the tree, and not ignored."""
        ignored = (_DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        kept = {line[1:] for line in ignored if line.startswith("!")}
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", self.STAGES[0], re.MULTILINE)
        sources = [source for line in copied for source in line.split()]
        assert len(sources) > 4
        assert set(sources) == kept
        assert [] == [source for source in sources if not (_ROOT / source).exists()]

    def test_the_last_stage_builds_nothing(self) -> None:
        """It copies what was built, and runs as a user without rights who owns /data alone."""
        build, last = self.STAGES
        assert "pip install" in build
        assert not re.search(r"pip |apt|gcc|make ", last)
        assert re.findall(r"^USER (\d+):(\d+)$", last, re.MULTILINE) == [("10001", "10001")]
        assert re.search(r"^VOLUME /data$", last, re.MULTILINE)

    def test_its_settings_are_settings(self) -> None:
        """A wrong name would be ignored."""
        names = re.findall(rf"{settings.PREFIX}\w+", self.TEXT)
        assert names
        assert set() == _unknown(dict.fromkeys(names, ""))

    def test_its_health_check_tells_the_living_from_the_dead(self, tmp_path: Path) -> None:
        """The very command, beside a real proxy and beside none."""
        found = re.search(r'CMD \["python", "-c", \\\n  "(.*)"\]', self.TEXT)
        assert found is not None

        def check(port: int) -> int:
            port_of_it = {f"{settings.PREFIX}ADMIN_PORT": str(port)}
            return _run(sys.executable, "-c", found[1], **port_of_it).returncode

        with running_proxy(
            tmp_path, api_url="http://127.0.0.1:1/api", routes=[_ROUTE], ADMIN_PORT="0"
        ) as proxy:
            proxy.wait(lambda: proxy.records("admin listening"))
            port = int(proxy.records("admin listening")[0]["port"])
            proxy.wait(lambda: check(port) == 0)
            proxy.stop()
            assert 0 != check(port)


class TestCompose:
    """The three services in place of VISA's own."""

    FILE = _DEPLOY / "docker-compose.yml"
    COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
    PROXY: dict[str, Any] = COMPOSE["services"]["visa-jupyter-proxy"]

    def test_it_is_what_compose_reads(self) -> None:
        """By the schema of the Compose specification."""
        checker = _BIN / "check-jsonschema"
        done = _run(checker, "--builtin-schema", "vendor.compose-spec", self.FILE)
        assert 0 == done.returncode, done.stdout

    def test_its_settings_can_be_used(self, tmp_path: Path) -> None:
        """As the program reads them, with the variables' defaults, and secrets from files."""
        variables = {
            name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            for name, value in self.PROXY["environment"].items()
        }
        secret = tmp_path / "storage-url"
        secret.write_text("postgresql+asyncpg://visa_jupyter_proxy:x@postgres:5432/visa_jupyter_proxy\n")
        name = f"{settings.PREFIX}STORAGE_URL_FILE"
        assert "/run/secrets/storage-url" == variables[name]
        loaded, warnings = settings.load(variables | {name: str(secret)}, tmp_path)
        assert () == warnings
        assert "postgres:5432" in str(loaded.storage_url)

    def test_nginx_is_trusted_and_nobody_else(self) -> None:
        """By its address in the network in which it finds the proxy."""
        nginx = self.COMPOSE["services"]["nginx"]["networks"]["front"]["ipv4_address"]
        assert nginx == self.PROXY["environment"][f"{settings.PREFIX}TRUSTED_PROXIES"]
        (alias,) = self.PROXY["networks"]["front"]["aliases"]
        assert f"server {alias}:8088;" in (_DEPLOY / "compose" / "upstream.conf").read_text()

    def test_the_proxy_has_no_rights(self) -> None:
        """It writes to its volumes alone."""
        assert self.PROXY["read_only"]
        assert ["ALL"] == self.PROXY["cap_drop"]
        assert ["no-new-privileges:true"] == self.PROXY["security_opt"]
        assert "ports" not in self.PROXY

    def test_it_may_drain(self) -> None:
        """Docker waits longer than DRAIN_S."""
        drain = float(str(settings.Settings.model_fields["drain_s"].default))
        assert float(self.PROXY["stop_grace_period"].removesuffix("s")) > drain

    def test_all_that_is_mounted_is_there(self) -> None:
        """But for what the operator makes: certificate, secrets, VISA's own locations."""
        theirs = {"./tls", "./visa.d", "./secrets/storage-url", "./secrets/postgres-password"}
        mounts = [
            volume.split(":")[0]
            for service in self.COMPOSE["services"].values()
            for volume in service.get("volumes", ())
            if volume.startswith(".")
        ]
        mounts += [secret["file"] for secret in self.COMPOSE["secrets"].values()]
        assert theirs == {mount for mount in mounts if not (_DEPLOY / mount).exists()}

    def test_its_upstream_differs_in_the_name_alone(self) -> None:
        """What is said of connections in nginx/upstream.conf holds here, too."""

        def directives(path: Path) -> list[str]:
            return re.findall(r"^ +(?!server)(\w.*;)$", path.read_text(), re.MULTILINE)

        assert directives(NGINX / "upstream.conf") == directives(_DEPLOY / "compose" / "upstream.conf")


class TestKubernetes:
    """The manifests: plain ones, for a cluster with ingress-nginx and an adapter for metrics."""

    FILES = sorted((_DEPLOY / "kubernetes").glob("*.yaml"))
    MANIFESTS: list[dict[str, Any]] = [  # noqa: RUF012 -- read once, by all
        manifest for path in FILES for manifest in yaml.safe_load_all(path.read_text())
    ]

    def _one(self, kind: str, name: str = "visa-jupyter-proxy") -> dict[str, Any]:
        (found,) = [one for one in self.MANIFESTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        return found

    @property
    def _pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self._one("Deployment")["spec"]["template"]["spec"]
        return pod

    @property
    def _container(self) -> dict[str, Any]:
        (container,) = self._pod["containers"]
        return dict(container)

    @pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
    def test_they_are_what_kubernetes_reads(self, version: str) -> None:
        """By its own schemas, strictly: no field that it does not know."""
        assert len(self.MANIFESTS) > 7
        for manifest in self.MANIFESTS:
            kubernetes_validate.validate(manifest, version, strict=True)

    def test_the_settings_can_be_used(self, tmp_path: Path) -> None:
        """As the program reads them, secrets from files."""
        variables = dict(self._one("ConfigMap")["data"])
        for variable in self._container["env"]:
            file = tmp_path / Path(variable["value"]).name
            file.write_text(f"postgresql://u:p@h/{'x' * 30}" if "STORAGE" in variable["name"] else "x" * 48)
            variables[variable["name"]] = str(file)
            (mount,) = [one for one in self._container["volumeMounts"] if one["name"] == "secrets"]
            assert str(Path(variable["value"]).parent) == mount["mountPath"]
        loaded, warnings = settings.load(variables, tmp_path)
        assert () == warnings
        ports = {port["name"]: port["containerPort"] for port in self._container["ports"]}
        assert {"http": loaded.server_port, "admin": loaded.admin_port} == ports

    def test_it_may_drain(self) -> None:
        """Nobody kills it before preStop and DRAIN_S are over."""
        drain = float(self._one("ConfigMap")["data"][f"{settings.PREFIX}DRAIN_S"])
        waits = self._container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert self._pod["terminationGracePeriodSeconds"] > drain + waits

    def test_the_probes_are_answered(self, tmp_path: Path) -> None:
        """By a real proxy with a token, and without sending it, as the kubelet asks."""
        probes = [self._container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
        assert {"admin"} == {probe["port"] for probe in probes}
        with running_proxy(
            tmp_path,
            api_url="http://127.0.0.1:1/api",
            routes=[_ROUTE],
            ADMIN_HOST="0.0.0.0",  # noqa: S104 -- as in the manifest
            ADMIN_PORT="0",
            ADMIN_TOKEN="x" * 48,
        ) as proxy:
            proxy.wait(lambda: proxy.records("admin listening"))
            port = int(proxy.records("admin listening")[0]["port"])
            paths = {probe["path"] for probe in probes}
            proxy.wait(lambda: {_status(port, path) for path in paths} == {200})
            assert 401 == _status(port, "/metrics")

    def test_it_has_no_rights(self) -> None:
        """The user is the image's; nothing is written but to volumes of its own."""
        assert self._pod["securityContext"]["runAsNonRoot"]
        user = str(self._pod["securityContext"]["runAsUser"])
        assert f"USER {user}:" in TestDockerfile.TEXT
        security = self._container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert ["ALL"] == security["capabilities"]["drop"]
        assert not self._pod["automountServiceAccountToken"]

    def test_they_belong_together(self) -> None:
        """Selectors, names and ports of one manifest are those of another."""
        labels = self._one("Deployment")["spec"]["template"]["metadata"]["labels"]
        services = [one for one in self.MANIFESTS if one["kind"] == "Service"]
        for selected in (
            *(service["spec"]["selector"] for service in services),
            self._one("Deployment")["spec"]["selector"]["matchLabels"],
            self._one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            self._one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ):
            assert labels == selected
        names = {port["name"] for port in self._container["ports"]}
        assert {port["targetPort"] for one in services for port in one["spec"]["ports"]} <= names
        assert "visa-jupyter-proxy" == self._one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]

    def test_it_scales_by_what_there_is(self) -> None:
        """The adapter's rule asks for a metric of ours, and gives it the name that is used."""
        text = (_DEPLOY / "kubernetes" / "availability.yaml").read_text()
        (name,) = re.findall(r"name: \{as: (\w+)\}", text)
        (metric,) = self._one("HorizontalPodAutoscaler")["spec"]["metrics"]
        assert name == metric["pods"]["metric"]["name"]
        assert set(re.findall(r"visa_jupyter_proxy_(\w+)\{kind=\"tunnel\"", text)) == {"connections"}
        assert METRICS["connections"].labels == ("kind",)

    def test_the_ingress_has_every_service(self) -> None:
        """The paths that deploy/nginx has."""
        (rule,) = self._one("Ingress")["spec"]["rules"]
        (names,) = re.findall(r"\(\?:([^)]+)\)", (NGINX / "locations.conf").read_text())
        assert [f"/{name}/" for name in names.split("|")] == [one["path"] for one in rule["http"]["paths"]]


def _status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
class TestSystemd:
    """The unit for a machine without containers."""

    def _unit(self, tmp_path: Path) -> Path:
        """Copy it with a program that is there."""
        text = (_DEPLOY / "systemd" / "visa-jupyter-proxy.service").read_text()
        program = "/opt/visa-jupyter-proxy/bin/visa-jupyter-proxy serve"
        assert f"ExecStart={program}\n" in text
        unit = tmp_path / "visa-jupyter-proxy.service"
        unit.write_text(text.replace("/opt/visa-jupyter-proxy/bin", str(_BIN)))
        return unit

    def test_it_is_what_systemd_reads(self, tmp_path: Path) -> None:
        """Without a complaint about any directive."""
        sock = shutil.copy(_DEPLOY / "systemd" / "visa-jupyter-proxy.socket", tmp_path)
        done = _run("systemd-analyze", "verify", "--man=no", self._unit(tmp_path), sock)
        ours = [line for line in done.stderr.splitlines() if "visa-jupyter-proxy" in line]
        assert (0, []) == (done.returncode, ours)

    def test_it_is_hardened(self, tmp_path: Path) -> None:
        """Its exposure is below 2 of 10; that of a service that says nothing is above 9."""
        command = ("systemd-analyze", "security", "--offline=true", "--json=short", "--threshold=20")
        done = _run(*command, self._unit(tmp_path))
        assert 0 == done.returncode, done.stdout

    def test_its_settings_are_settings(self, tmp_path: Path) -> None:
        """A wrong name would be ignored; the journal is where systemd makes a directory."""
        text = self._unit(tmp_path).read_text()
        variables = dict(re.findall(r"^#? ?Environment=(\w+)=(.*)$", text, re.MULTILINE))
        assert set() == _unknown(variables)
        (state,) = re.findall(r"^StateDirectory=(.*)$", text, re.MULTILINE)
        assert f"/var/lib/{state}" == variables[f"{settings.PREFIX}STORAGE_DIR"]

    def test_it_allows_the_system_calls_that_are_made(self) -> None:
        """Bodies through the kernel, one epoll per worker, memory that workers share."""
        listed = _run("systemd-analyze", "syscall-filter", "--no-pager").stdout
        groups = _groups(listed)
        allowed = _members(groups, "@system-service")
        refused = _members(groups, "@privileged") | _members(groups, "@resources")
        made = {
            "splice",
            "pipe2",
            "epoll_create1",
            "memfd_create",
            "accept4",
            "prlimit64",
            "flock",
            "fdatasync",
        }
        assert set() == made - allowed
        assert set() == (made & refused)


def _groups(listed: str) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.add(line.strip())
    return groups


def _members(groups: dict[str, set[str]], name: str) -> set[str]:
    return {
        call
        for member in groups[name]
        for call in (_members(groups, member) if member.startswith("@") else {member})
    }
