"""What is in `deploy/`: each file is read by what it is for, or by a linter of its format.

No image is built and no cluster is run here: Dockerfile, compose file and manifests are linted, and the
commands in them that can be run are run. nginx is in `process/test_nginx.py` and `e2e/test_nginx.py`.
"""

import http.client
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
import typer
import yaml

from support.nginx import DEPLOY as NGINX
from support.nginx import program
from support.proxy import running_proxy
from visa_jupyter_proxy import console, settings
from visa_jupyter_proxy.cli import app
from visa_jupyter_proxy.metrics import METRICS

_ROOT = Path(__file__).parent.parent
_DEPLOY = _ROOT / "deploy"
_BIN = Path(sys.executable).parent
_COMMANDS = set(getattr(typer.main.get_command(app), "commands", {}))
_ALIAS = "visa-jupyter-proxy.front"
"""By which nginx finds the proxy in the Compose file."""

_ROUTE = {"match": r"^/x/(\d+)", "type": "service", "name": "X", "remotePort": 80}


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)


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

    def test_what_is_built_is_what_runs(self) -> None:
        """The environment that is filled is the one that is copied, at the same place, and found by PATH."""
        build, last = self.STAGES
        (venv,) = re.findall(r"python -m venv (\S+)", build)
        assert {venv} == set(re.findall(r"(/opt/\S+)/bin/(?:pip|python)", build))
        assert f"COPY --from=build {venv} {venv}\n" in last
        assert f"ENV PATH={venv}/bin:$PATH" in last
        (wheels,) = re.findall(r"--wheel-dir (\S+)", build)
        assert f"{venv}/bin/pip install --no-cache-dir --no-deps {wheels}/*.whl" in build
        (copied,) = re.findall(
            r"^COPY (deploy/requirements\S* deploy/requirements\S*) deploy/$", build, re.MULTILINE
        )
        assert sorted(copied.split()) == sorted(re.findall(r"--require-hashes -r (\S+)", build))

    def test_what_it_starts(self) -> None:
        """The program that the package has, with a command of it; nothing else listens for clients."""
        (program,) = re.findall(r'^ENTRYPOINT \["(\S+)"\]$', self.TEXT, re.MULTILINE)
        assert [program] == [*tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]]
        (command,) = re.findall(r'^CMD \["(\S+)"\]$', self.TEXT, re.MULTILINE)
        assert command in _COMMANDS
        port = settings.Settings.model_fields["server_port"].default
        assert [str(port)] == re.findall(r"^EXPOSE (.*)$", self.TEXT, re.MULTILINE)

    def test_its_settings_are_settings(self) -> None:
        """A wrong name would be ignored."""
        names = re.findall(rf"{settings.PREFIX}\w+", self.TEXT)
        assert names
        assert set() == _unknown(dict.fromkeys(names, ""))

    @pytest.mark.parametrize("host", [None, "127.0.0.2", "0.0.0.0"])
    def test_its_health_check_tells_the_living_from_the_dead(self, tmp_path: Path, host: str | None) -> None:
        """The very command, beside a real proxy and beside none."""
        found = re.search(r'CMD \["python", "-c", \\\n  "(.*)"\]', self.TEXT)
        assert found is not None

        def check(port: int) -> int:
            variables = {"ADMIN_PORT": str(port)} | ({} if host is None else {"ADMIN_HOST": host})
            variables = {settings.PREFIX + name: value for name, value in variables.items()}
            return _run(sys.executable, "-c", found[1], **variables).returncode

        given = {} if host is None else {"ADMIN_HOST": host, "ADMIN_TOKEN": "x" * 48}
        with running_proxy(
            tmp_path, api_url="http://127.0.0.1:1/api", routes=[_ROUTE], ADMIN_PORT="0", **given
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

    def _environment(self, given: dict[str, str]) -> dict[str, str]:
        """Fill in what `.env` beside the file says, as Compose does."""
        return {
            name: re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1]) or found[2], value)
            for name, value in self.PROXY["environment"].items()
        }

    def test_the_env_of_the_original_holds(self, tmp_path: Path) -> None:
        """All of it, but where it listens and keeps its data, which are the container's own."""
        given = {
            "API_HOST": "visa-api",
            "API_PORT": "18086",
            "CACHE_REFRESH_TIME_S": "30",
            "LOG_LEVEL": "debug",
            "LOG_TIMEZONE": "Europe/Paris",
            "LOG_SYSLOG_HOST": "10.0.0.1",
            "LOG_SYSLOG_PORT": "514",
            "LOG_SYSLOG_APP_NAME": "visa",
        }
        environment = self._environment({settings.PREFIX + name: value for name, value in given.items()})
        del environment[f"{settings.PREFIX}STORAGE_URL_FILE"]
        loaded, warnings = settings.load(environment, tmp_path)
        assert () == warnings
        assert given == {name: str(getattr(loaded, name.lower())).removesuffix(".0") for name in given}
        assert "http://visa-api:18086/api" == loaded.api_base_url

    def test_its_settings_can_be_used(self, tmp_path: Path) -> None:
        """As the program reads them, with the variables' defaults, and secrets from files."""
        variables = self._environment({})
        secret = tmp_path / "storage-url"
        secret.write_text("postgresql+asyncpg://visa_jupyter_proxy:x@postgres:5432/visa_jupyter_proxy\n")
        name = f"{settings.PREFIX}STORAGE_URL_FILE"
        assert "/run/secrets/storage-url" == variables[name]
        loaded, warnings = settings.load(variables | {name: str(secret)}, tmp_path)
        assert () == warnings
        assert "postgres:5432" in str(loaded.storage_url)

    def test_the_database_is_the_one_that_is_asked(self) -> None:
        """User, database and host of the head's STORAGE_URL are those that PostgreSQL is given."""
        (url,) = re.findall(r'"postgresql\+asyncpg://(.*)" > secrets/storage-url', self.FILE.read_text())
        postgres = self.COMPOSE["services"]["postgres"]
        given = postgres["environment"]
        user, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
        assert f"{user}:$(cat secrets/postgres-password)@postgres:5432/{database}" == url
        assert ["CMD", "pg_isready", "-U", user, "-d", database] == postgres["healthcheck"]["test"]
        assert set(postgres["networks"]) <= set(self.PROXY["networks"])
        assert "/run/secrets/postgres-password" == given["POSTGRES_PASSWORD_FILE"]

    def test_the_image_is_the_one_of_the_dockerfile(self) -> None:
        """Made from the tree, and called what the Dockerfile's head and the manifests call it."""
        built = (self.FILE.parent / self.PROXY["build"]["context"]).resolve()
        assert (_ROOT, _DEPLOY / "Dockerfile") == (built, built / self.PROXY["build"]["dockerfile"])
        assert f"-t {self.PROXY['image']} .\n" in TestDockerfile.TEXT

    def test_nginx_reads_what_is_mounted(self, tmp_path: Path) -> None:
        """All of it, in the order of its names, as nginx's own image includes it; nginx has no complaint."""
        (tmp_path / "visa.d").mkdir()
        for mount in self.COMPOSE["services"]["nginx"]["volumes"]:
            ours, theirs, _ = mount.split(":")
            place = tmp_path / theirs.removeprefix("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (_DEPLOY / ours).is_file():
                text = (_DEPLOY / ours).read_text().replace(f"{_ALIAS}:8088", "127.0.0.1:8088")
                place.write_text(re.sub(r"(?<=\s)/(?=etc/nginx|var/log)", f"{tmp_path}/", text))
            else:
                place.mkdir()
        certificate = trustme.CA().issue_cert("visa.example.org").private_key_and_cert_chain_pem
        for name in ("visa.pem", "visa.key"):
            certificate.write_to_path(str(tmp_path / "etc/nginx/tls" / name))
        (tmp_path / "var/log/nginx").mkdir(parents=True)
        parts = f"include {tmp_path}/etc/nginx/conf.d/*.conf;"
        main = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {parts} }}"
        (tmp_path / "nginx.conf").write_text(main)
        done = _run(program(), "-t", "-q", "-c", tmp_path / "nginx.conf", "-p", tmp_path)
        assert (0, []) == (done.returncode, [line for line in done.stderr.splitlines() if "user" not in line])

    def test_nginx_is_trusted_and_nobody_else(self) -> None:
        """By its address in the network in which it finds the proxy."""
        nginx = self.COMPOSE["services"]["nginx"]["networks"]["front"]["ipv4_address"]
        assert nginx == self.PROXY["environment"][f"{settings.PREFIX}TRUSTED_PROXIES"]
        (front,) = self.COMPOSE["networks"]["front"]["ipam"]["config"]
        assert ipaddress.ip_address(nginx) in ipaddress.ip_network(front["subnet"])
        assert [_ALIAS] == self.PROXY["networks"]["front"]["aliases"]
        assert f"server {_ALIAS}:8088;" in (_DEPLOY / "compose" / "upstream.conf").read_text()

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

    def test_what_is_referred_to_is_there(self) -> None:
        """The settings, the secret as config.yaml has it made, the directory of the image, the services."""
        (source,) = self._container["envFrom"]
        self._one("ConfigMap", source["configMapRef"]["name"])
        made = (_DEPLOY / "kubernetes" / "config.yaml").read_text()
        volumes = {volume["name"]: volume for volume in self._pod["volumes"]}
        assert f"create secret generic {volumes['secrets']['secret']['secretName']} " in made
        keys = set(re.findall(r"--from-literal=([\w-]+)=", made))
        assert keys == {Path(variable["value"]).name for variable in self._container["env"]}
        mounted = {one["mountPath"]: one["name"] for one in self._container["volumeMounts"]}
        assert set(mounted.values()) == set(volumes)
        assert re.findall(r"STORAGE_DIR=(\S+)", TestDockerfile.TEXT)[0] in mounted
        assert self._container["image"] == TestCompose.PROXY["image"]
        for rule in self._one("Ingress")["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                ports = self._one("Service", service["name"])["spec"]["ports"]
                assert service["port"]["name"] in {port["name"] for port in ports}
        names = {port["name"] for port in self._container["ports"]}
        rules = self._one("NetworkPolicy")["spec"]["ingress"]
        assert names == {port["port"] for rule in rules for port in rule["ports"]}

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
            ADMIN_HOST="0.0.0.0",
            ADMIN_PORT="0",
            ADMIN_TOKEN="x" * 48,
        ) as proxy:
            proxy.wait(lambda: proxy.records("admin listening"))
            port = int(proxy.records("admin listening")[0]["port"])
            paths = {probe["path"] for probe in probes}
            proxy.wait(lambda: {_status(port, path) for path in paths} == {200})
            assert 401 == _status(port, "/metrics")

    def test_pods_stay_in_service_without_postgresql(self) -> None:
        """`/health/ready` is 503 then, on all of them: it is asked at the start alone, as the page says."""
        asked = {
            name: self._container[f"{name}Probe"]["httpGet"]["path"]
            for name in ("startup", "readiness", "liveness")
        }
        assert {
            "startup": "/health/ready",
            "readiness": "/health/live",
            "liveness": "/health/live",
        } == asked
        page = (_ROOT / "docs/operating/deploying.md").read_text()
        assert "Without PostgreSQL `/health/ready` does say 503" in page

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
        assert "tunnel (" in METRICS["connections"].help
        assert 2 == len(re.findall(r'\{kind="tunnel"', text))

    def test_the_ingress_has_every_service(self) -> None:
        """The paths that deploy/nginx has."""
        (rule,) = self._one("Ingress")["spec"]["rules"]
        (names,) = re.findall(r"\(\?:([^)]+)\)", (NGINX / "locations.conf").read_text())
        assert [f"/{name}/" for name in names.split("|")] == [one["path"] for one in rule["http"]["paths"]]

    def test_the_ingress_does_what_nginx_does(self) -> None:
        """Each annotation has the value of the directive that ingress-nginx makes of it."""
        directives = dict(
            re.findall(
                r"^ +(client_\w+|proxy_\w+) (\S+);$", (NGINX / "locations.conf").read_text(), re.MULTILINE
            )
        )
        prefix = "nginx.ingress.kubernetes.io/"
        annotations = self._one("Ingress")["metadata"]["annotations"]
        made = {name.removeprefix(prefix).replace("-", "_"): value for name, value in annotations.items()}
        made["client_max_body_size"] = made.pop("proxy_body_size")
        seconds = {"5s": "5", "1d": "86400"}
        assert made == {name: seconds.get(directives[name], directives[name]) for name in made}
        assert {"proxy_request_buffering", "proxy_buffering", "proxy_read_timeout"} < set(made)


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

    def test_it_does_what_the_program_expects(self, tmp_path: Path) -> None:
        """Told when it serves, with time to drain; a mistake starts nothing again; what reloads exists."""
        unit = dict(re.findall(r"^(\w+)=(.+)$", self._unit(tmp_path).read_text(), re.MULTILINE))
        assert "notify" == unit["Type"]
        assert float(str(settings.Settings.model_fields["drain_s"].default)) < float(unit["TimeoutStopSec"])
        assert str(int(console.Status.MISTAKEN)) == unit["RestartPreventExitStatus"]
        for name in ("ExecStart", "ExecReload"):
            assert unit[name].split()[1] in _COMMANDS
        # NOTIFY_SOCKET and control.sock are of the family that is easily forgotten.
        assert {"AF_INET", "AF_INET6", "AF_UNIX"} == set(unit["RestrictAddressFamilies"].split())
        sock = (_DEPLOY / "systemd" / "visa-jupyter-proxy.socket").read_text()
        port = settings.Settings.model_fields["server_port"].default
        assert [str(port)] == re.findall(r"^ListenStream=(.*)$", sock, re.MULTILINE)

    def test_it_allows_the_system_calls_that_are_made(self) -> None:
        """Bodies through the kernel, memory that workers share, control that gives way to them."""
        listed = _run("systemd-analyze", "syscall-filter", "--no-pager").stdout
        groups = _groups(listed)
        unit = (_DEPLOY / "systemd" / "visa-jupyter-proxy.service").read_text()
        allowed: set[str] = set()
        for tilde, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", unit, re.MULTILINE):
            # Each line adds to those before it, or takes away (systemd.exec(5)).
            for name in names.split():
                calls = _members(groups, name) if name in groups else {name}
                allowed = allowed - calls if tilde else allowed | calls
        made = {
            "splice",
            "pipe2",
            "epoll_create1",
            "memfd_create",
            "accept4",
            "prlimit64",
            "flock",
            "fdatasync",
            "openat",
            "connect",
            "setpriority",
        }
        assert set() == made - allowed
        assert "setrlimit" not in allowed


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
