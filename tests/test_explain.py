"""`visa-jupyter-proxy explain` and `routes`: what becomes of a request, and why."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.client import RawClient
from support.commands import PREFIX, Site
from support.identity import Provider
from support.instance import Instance
from support.proxy import running_proxy
from support.visa_api import VisaApiServer, visa_api_thread
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.diagnosis.advice import ADVICE
from visa_jupyter_proxy.errors import ProxyError

_TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl"
_FILES = {
    "match": r"^/visafs/(\d+).*",
    "type": "service",
    "name": "Visa Files",
    "remotePort": 8090,
    "pathRewrite": {r"^/visafs/\d+/": "/"},
}
_CHANNELS = "/jupyter/7/api/kernels/k-1/channels?session_id=s-1"


@pytest.fixture(scope="module")
def api() -> Iterator[VisaApiServer]:
    """Run a VISA API."""
    with visa_api_thread() as server:
        yield server


@pytest.fixture
def instance() -> Iterator[Instance]:
    """Run an instance at a port of its own."""
    with Instance(0) as instance:
        assert instance.listener is not None
        instance.port = instance.listener.getsockname()[1]
        yield instance


@pytest.fixture
def site(tmp_path: Path, api: VisaApiServer, instance: Instance) -> Site:
    """Give a directory with the routes of production, of which Jupyter's is at the instance's port."""
    site = Site(tmp_path)
    site.settings(API_URL=api.url, INSTANCE_NETWORKS="127.0.0.0/8")
    site.routes(_routes(instance))
    (tmp_path / "token").write_text(_TOKEN + "\n")
    api.user(_TOKEN, "anna")
    api.instance(7, owner="anna", ip=instance.host)
    return site


def _routes(instance: Instance, **fields: Any) -> list[dict[str, Any]]:
    jupyter = {"match": r"^/jupyter/(\d+).*", "type": "jupyter", "name": "Jupyter", "ws": True}
    return [{**jupyter, "remotePort": instance.port, **fields}, _FILES]


def _told(site: Site, *arguments: str, refused: bool = False) -> dict[str, Any]:
    answer = site.run("explain", "--json", *arguments)
    assert int(refused) == answer.exit_code, answer.output
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def _changes(told: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {field["name"]: (field["change"], field["value"]) for field in told["fields"]}


class TestForwarded:
    """Ten requests that go to an instance."""

    def test_a_page(self, site: Site) -> None:
        """Service, instance, place, target; what is added and taken out; the token is nowhere."""
        told = _told(site, "/jupyter/7/lab")
        assert ("Jupyter", 7, "GET /jupyter/7/lab") == (told["service"], told["instance"], told["sent"])
        assert told["connects_to"].startswith("http://ADDRESS:")
        changes = _changes(told)
        assert ("changed", "_xsrf=1") == changes["Cookie"]
        assert ("changed", "203.0.113.7, 127.0.0.1") == changes["X-Forwarded-For"]
        assert ("kept", "https") == changes["X-Forwarded-Proto"]
        assert ("added", "visa.example.org") == changes["X-Forwarded-Host"]
        assert "dropped" == changes["Connection"][0]

    def test_a_whole_address(self, site: Site) -> None:
        """Host, scheme, query; what is behind a # stays in the browser."""
        told = _told(site, "http://visa.facility.org/jupyter/7/lab?reset#x")
        assert ("visa.facility.org", "GET /jupyter/7/lab?reset") == (told["host"], told["sent"])
        assert ("kept", "http") == _changes(told)["X-Forwarded-Proto"]

    @pytest.mark.parametrize(
        ("url", "request_", "host"),
        [
            ("//jupyter/7/lab", "GET //jupyter/7/lab", "visa.example.org"),
            ("https://anna:secret@visa.test/jupyter/7/lab", "GET /jupyter/7/lab", "visa.test"),
            ("https://visa.test", "GET /", "visa.test"),
            ("https://visa.test?x=1", "GET /?x=1", "visa.test"),
            ("/jupyter/7/\udcff", "GET /jupyter/7/%FF", "visa.example.org"),
            ("/jupyter/7/é b", "GET /jupyter/7/%C3%A9%20b", "visa.example.org"),
        ],
    )
    def test_addresses_as_people_write_them(self, site: Site, url: str, request_: str, host: str) -> None:
        """As a browser takes them; a path is one, with however many slashes."""
        told = json.loads(site.run("explain", "--json", url).stdout)
        assert (request_, host) == (told["request"], told["host"])
        assert "secret" not in json.dumps(told)

    @pytest.mark.parametrize("value", ["é", "\udcff"])
    def test_bytes_of_a_field(self, site: Site, value: str) -> None:
        """They are sent as they were written."""
        told = _told(site, "/jupyter/7/lab", "-H", f"X-Name: {value}")
        (field,) = (field for field in told["fields"] if field["name"] == "X-Name")
        assert (value, "kept") == (field["value"], field["change"])

    def test_a_request_with_a_body(self, site: Site) -> None:
        """There is no answer to it before its body has come: none is shown."""
        told = _told(site, "/jupyter/7/api/contents", "--method", "PUT", "-H", "Content-Length: 5")
        assert (True, []) == ("PUT" in told["sent"], told["answer"])

    def test_a_rewritten_path(self, site: Site) -> None:
        """The target that is sent, and how places that the service names come back."""
        told = _told(site, "/visafs/7/api/files//x")
        assert ("Visa Files", "GET /api/files//x") == (told["service"], told["sent"])
        assert ("added", "/visafs/7") == _changes(told)["X-Forwarded-Prefix"]
        got = {field["name"]: field["browser"] for field in told["answer"]}
        assert {
            "Location": "/visafs/7/there",
            "Set-Cookie": "name=value; Path=/visafs/7/",
            "Clear-Site-Data": None,
        } == got

    def test_a_kernel(self, site: Site) -> None:
        """A WebSocket that is a notebook session: which one."""
        told = _told(site, "--websocket", _CHANNELS)
        assert ("k-1", "s-1") == (told["kernel"], told["session"])
        assert ("kept", "websocket") == _changes(told)["Upgrade"]

    def test_a_websocket_that_none_forwards(self, site: Site) -> None:
        """As plain HTTP; the output says what makes it one."""
        answer = site.run("explain", "-w", "/visafs/7/x")
        assert 0 == answer.exit_code
        assert 'as plain HTTP: set `"ws": true` for a WebSocket' in answer.stdout
        assert "- Upgrade: websocket" in answer.stdout

    def test_a_second_service_of_the_same_pattern(self, site: Site, instance: Instance) -> None:
        """Why the one behind is not taken, and why the one before not for a WebSocket."""
        plain, *_ = _routes(instance, ws=False, name="Plain")
        sockets, *_ = _routes(instance, name="Sockets")
        site.routes([plain, sockets])
        why = {one["name"]: one["why"] for one in _told(site, "/jupyter/7/x")["services"]}
        assert {"Plain": "takes it, for instance 7", "Sockets": "would match, but an earlier one does"} == why
        why = {one["name"]: one["why"] for one in _told(site, "-w", "/jupyter/7/x")["services"]}
        assert {"Plain": "would match, but has no `ws`", "Sockets": "takes it, for instance 7"} == why

    @pytest.mark.parametrize("how", [(), ("-w",)])
    def test_a_service_behind_one_that_covers_everything(
        self, site: Site, instance: Instance, how: tuple[str, ...]
    ) -> None:
        """The order is to be changed, no service added; where no order helps, the advice is another."""
        everything, *_ = _routes(instance, match="^/(.*)", name="All")
        site.routes([everything, *_routes(instance)])
        answer = site.run("explain", *how, "/jupyter/7/lab")
        assert 1 == answer.exit_code
        assert "Move `Jupyter` before `All`" in answer.stdout
        assert "Add a service" not in answer.stdout
        assert "Add a service" in site.run("explain", *how, "/jupiter/7").stdout

    def test_headers_that_the_route_sets(self, site: Site, instance: Instance) -> None:
        """By their names in braces, also when VISA has said what they are: it is a secret."""
        site.routes(_routes(instance, setHeaders={"X-Auth-Token": "{computeId}"}))
        for token in ([], ["--token", "token"]):
            told = _told(site, "/jupyter/7/x", "-H", "x-auth-token: mine", *token)
            assert ("changed", "{computeId}") == _changes(told)["X-Auth-Token"]
            assert "compute-secret" not in json.dumps(told)

    def test_a_direct_browser(self, site: Site) -> None:
        """Whom nobody trusts: what it says of itself is dropped, and its own address counts."""
        told = _told(site, "/jupyter/7/x", "--peer", "198.51.100.9", "-H", "X-Forwarded-For: 10.0.0.1")
        assert ("changed", "198.51.100.9") == _changes(told)["X-Forwarded-For"]
        assert ("added", "http") == _changes(told)["X-Forwarded-Proto"]

    def test_visa_is_asked(self, site: Site, instance: Instance) -> None:
        """With a token: the real address, the user, and a connection to the port on which nothing is sent."""
        for how, stdin in (("token", None), ("-", f"Bearer {_TOKEN}\n")):
            answer = site.run("explain", "/jupyter/7/lab", "--token", how, stdin=stdin)
            assert 0 == answer.exit_code, answer.output
            assert f"http://{instance.host}:{instance.port}" in answer.stdout
            assert "allows it, to anna" in answer.stdout
            assert _TOKEN not in answer.output
        instance.wait(lambda: instance.connections == 2)
        assert [] == instance.requests

    def test_the_token_that_is_not_taken_out(self, site: Site, instance: Instance) -> None:
        """`stripCredentials: false` is visible, the token is not."""
        site.routes(_routes(instance, stripCredentials=False))
        told = _told(site, "/jupyter/7/x", "--token", "token")
        assert ("kept", "_xsrf=1; access_token=TOKEN") == _changes(told)["Cookie"]
        assert _TOKEN not in json.dumps(told)


class TestRefused:
    """Ten configurations or requests that do not go well: what to change."""

    @pytest.mark.parametrize(
        ("arguments", "settings", "said"),
        [
            (["/jupiter/7"], {}, ["404 no_route", "its pattern does not match", "Add a service"]),
            (
                ["/jupyter/0/lab"],
                {},
                ["404 no_route", "the id is no instance id", "ask for an id that VISA has"],
            ),
            (["/jupyter/7/../8/lab"], {}, ["400 bad_request", "a dot segment in the path"]),
            (["/jupyter/7/" + "x" * 300], {"REQUEST_LINE_BYTES": "256"}, ["414", "REQUEST_LINE_BYTES"]),
            (["/jupyter/7"], {"SERVER_NAMES": "other.org"}, []),
            (["https://a.org/jupyter/7"], {"SERVER_NAMES": "b.org"}, ["421 misdirected", "SERVER_NAMES"]),
            (
                ["-w", "/jupyter/7/x", "-H", "Origin: https://lab.org"],
                {},
                ["403 origin_not_allowed", "ALLOWED_ORIGINS"],
            ),
            (["-w", "wss://visa.org/jupyter/7/x"], {"TRUSTED_PROXIES": "10.0.0.1"}, []),
            (
                ["-w", "/jupyter/7/x", "--peer", "10.0.0.2", "-H", "Host: proxy:8088"],
                {},
                ["403 origin_not_allowed", "must send Host as it came"],
            ),
            (["/jupyter/7/x", "-H", "Cookie: a=b"], {}, ["401 no_token", "signed in to VISA"]),
            (["/jupyter/7/x", "--token", "token"], {"API_URL": "http://127.0.0.1:1/api"}, ["503", "API_URL"]),
            (["/jupyter/8/x", "--token", "token"], {}, ["404 instance_not_found", "Only the owner"]),
            (
                ["/jupyter/7/x", "--token", "token"],
                {"INSTANCE_NETWORKS": "10.0.0.0/8"},
                ["502 instance_address", "INSTANCE_NETWORKS"],
            ),
            (["/jupyter/7/x", "--token", "other"], {}, ["401 token_rejected", "has expired"]),
        ],
    )
    def test_it_says_what_to_change(
        self, site: Site, arguments: list[str], settings: dict[str, str], said: list[str]
    ) -> None:
        """The status and the reason are those of the worker, the advice names the setting."""
        (site.directory / "other").write_text("another-token")
        site.settings(**settings)
        answer = site.run("explain", *arguments)
        assert int(bool(said)) == answer.exit_code, answer.output
        for words in said:
            assert words in answer.stdout

    def test_a_token_that_nobody_has_signed(self, site: Site, api: VisaApiServer) -> None:
        """With keys, VISA is not asked about it: as a worker does it."""
        provider = Provider()
        (site.directory / "keys.json").write_bytes(provider.key_set())
        (site.directory / "signed").write_text(signed := provider.token())
        api.user(signed, "anna")
        site.settings(JWKS_FILE="keys.json")
        before = len(api.requests)
        assert (
            "token_rejected"
            == _told(site, "/jupyter/7/x", "--token", "token", refused=True)["refused"]["error"]
        )
        assert before == len(api.requests)
        assert "anna" == _told(site, "/jupyter/7/x", "--token", "signed")["user"]

    def test_nothing_listens(self, site: Site, instance: Instance) -> None:
        """VISA allows it, and the port is closed."""
        instance.refuse()
        answer = site.run("explain", "/jupyter/7/x", "--token", "token")
        assert 1 == answer.exit_code
        assert "502 instance_unreachable" in answer.stdout
        assert "is `remotePort` its port" in answer.stdout

    def test_the_instance_is_being_built(self, site: Site, api: VisaApiServer) -> None:
        """It has no address yet."""
        api.instance(7, owner="anna", ip=None, state="BUILDING")
        answer = site.run("explain", "/jupyter/7/x", "--token", "token")
        assert (1, True) == (answer.exit_code, "503 instance_not_ready" in answer.stdout)

    def test_a_body_that_is_too_large(self, site: Site, instance: Instance) -> None:
        """By the length that it announces."""
        site.routes(_routes(instance, maxBodyBytes=1000))
        large = ("--method", "put", "-H", "Content-Length: 1001")
        assert "content_too_large" == _told(site, "/jupyter/7/x", *large, refused=True)["refused"]["error"]
        assert _told(site, "/jupyter/7/x", "--method", "put", "-H", "Content-Length: 1000")["sent"]

    def test_every_reason_has_an_advice(self) -> None:
        """A new one needs one."""
        kinds = {
            kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProxyError)
        }
        assert kinds - {ProxyError} == set(ADVICE)


class TestMistakes:
    """What stands in the configuration, or on the command line, and cannot be used."""

    def test_the_configuration(self, site: Site) -> None:
        """As `serve` says it, with the same status."""
        site.routes([{**_FILES, "remotPort": 1}])
        for command in (["explain", "/visafs/7"], ["routes"]):
            answer = site.run(*command)
            assert 2 == answer.exit_code
            assert "$[0].remotPort: is no known key: write `remotePort`" in answer.stderr

    def test_a_token_on_the_command_line(self, site: Site) -> None:
        """It is refused, and not repeated."""
        answer = site.run("explain", "/jupyter/7/x", "--token", _TOKEN)
        assert 2 == answer.exit_code
        assert "can be read by every user" in " ".join(answer.stderr.replace("│", " ").split())
        assert _TOKEN not in answer.output

    @pytest.mark.parametrize("field", ["Authorization: Bearer {}", "Cookie: access_token={}"])
    def test_a_token_in_a_field(self, site: Site, field: str) -> None:
        """What is said of it may be shown to others: it is not repeated."""
        for form in ([], ["--json"]):
            answer = site.run("explain", "/jupyter/7/x", "-H", field.format("some-token-of-anna"), *form)
            assert "the VISA token stays here" in answer.stdout
            assert "some-token" not in answer.output

    @pytest.mark.parametrize(
        "arguments",
        [
            ["ftp://x/y"],
            ["jupyter/7"],
            [""],
            ["http://[::1/jupyter/7"],
            ["https:///jupyter/7"],
            ["/jupyter/7", "-H", "X"],
            ["/jupyter/7", "-H", "X: a\nY: b"],
            ["/jupyter/7", "--peer", "localhost"],
            ["/jupyter/7", "--token", "/dev/null"],
        ],
    )
    def test_an_option_that_makes_no_sense(self, site: Site, arguments: list[str]) -> None:
        """Nothing is explained that was not asked; it is said what to write."""
        answer = site.run("explain", *arguments)
        assert (2, True) == (answer.exit_code, "write" in answer.stderr), answer.output


class TestTruth:
    """What is explained is what happens."""

    @pytest.mark.parametrize("path", ["/jupyter/7/lab?x=1", "/visafs/7/api//x", "/other/7"])
    def test_a_real_proxy_does_the_same(self, tmp_path: Path, api: VisaApiServer, path: str) -> None:
        """The same bytes reach the instance, field by field, and the same status the browser."""
        with Instance(0) as instance:
            assert instance.listener is not None
            instance.port = instance.listener.getsockname()[1]
            routes = [{**one, "remotePort": instance.port} for one in _routes(instance)]
            api.user(_TOKEN, "anna")
            api.instance(7, owner="anna", ip=instance.host)
            site = Site(tmp_path)
            site.settings(API_URL=api.url, INSTANCE_NETWORKS="127.0.0.0/8")
            site.routes(routes)
            (tmp_path / "token").write_text(_TOKEN)
            ours = ("--peer", "127.0.0.1", "-H", "X-Request-Id: one", "--token", "token")
            told = _told(site, path, *ours, refused=path.startswith("/other"))
            with (
                running_proxy(tmp_path, api_url=api.url, routes=routes) as proxy,
                RawClient(proxy.port) as client,
            ):
                answer = client.ask(f"GET {path} HTTP/1.1\r\n{_CAME}\r\n".encode())
            if told["refused"] is not None:
                assert told["refused"]["status"] == answer.status
                return
            (request,) = instance.requests
            sent = [(name.decode(), value.decode()) for name, value in request.fields]
            assert f"GET {request.target.decode()}" == told["sent"]
            explained = [(f["name"], f["value"]) for f in told["fields"] if f["change"] != "dropped"]
            assert sorted(explained) == sorted(sent)


_CAME = (
    "Host: visa.example.org\r\n"
    "Accept-Encoding: gzip, br\r\n"
    "User-Agent: visa-jupyter-proxy explain\r\n"
    f"Cookie: _xsrf=1; access_token={_TOKEN}\r\n"
    "Accept: */*\r\n"
    "Connection: keep-alive\r\n"
    "X-Request-Id: one\r\n"
)
"""What `explain` takes for a browser's."""


class TestRoutes:
    """`visa-jupyter-proxy routes`."""

    def test_it_shows_what_was_read(self, site: Site, instance: Instance) -> None:
        """In the order of the file, for people and for programs."""
        answer = site.run("routes")
        assert 0 == answer.exit_code
        assert answer.stdout.index("Jupyter") < answer.stdout.index("Visa Files")
        assert f"http, port {instance.port}" in answer.stdout
        told = json.loads(site.run("routes", "--json").stdout)
        assert str(site.directory / "proxy.conf.json") == told["file"]
        assert ["Jupyter", "Visa Files"] == [one["name"] for one in told["services"]]


class TestShell:
    """What a shell asks for."""

    def test_it_completes_commands(self, tmp_path: Path) -> None:
        """Typer's own completion: `visa-jupyter-proxy ex<TAB>`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        asked = {
            "_VISA_JUPYTER_PROXY_COMPLETE": "complete_bash",
            "COMP_WORDS": "visa-jupyter-proxy ex",
            "COMP_CWORD": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "visa_jupyter_proxy"],
            cwd=tmp_path,
            env=environment | asked,
            capture_output=True,
            check=False,
        )
        assert b"explain\n" == done.stdout

    def test_help_teaches(self, site: Site) -> None:
        """Every command says what it does, the first help with which to begin."""
        for command in ("check", "explain", "routes", "serve", "demo", "sessions"):
            assert command in site.run("--help").stdout
            assert 0 == site.run(command, "--help").exit_code
        assert "what to change if it is not" in " ".join(site.run("--help").stdout.split())
