"""nginx in front, with the files that are shipped: what arrives, and what browsers only pretend."""

import itertools
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.client import Message, Reader
from support.instance import Connection, Instance, ok
from support.nginx import DEPLOY, Nginx, program, running_nginx
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer, visa_api_thread
from visa_jupyter_proxy.settings import Settings

_TOKEN = "t" * 6000
_SERVICES = ("/jupyter", "/visafs", "/ws/print")
_SOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)
_numbers = itertools.count(7)


@dataclass
class Site:
    """A browser's view of VISA, and of an instance of its own."""

    nginx: Nginx
    proxy: RunningProxy
    instance: Instance
    number: int

    def ask(self, data: bytes) -> Message:
        """Send a request on a connection of its own, and take the response."""
        with self.nginx.connect() as sock:
            sock.sendall(data)
            return Reader(sock).message()

    def request(
        self, rest: str, *fields: str, service: str = "/jupyter", method: str = "GET", body: bytes = b""
    ) -> bytes:
        """Write a request of the instance's owner."""
        lines = [f"{method} {service}/{self.number}{rest} HTTP/1.1", "Host: visa.example.org:8443", *fields]
        lines += [f"Cookie: access_token={_TOKEN}; _xsrf=1"]
        lines += [] if "Upgrade: websocket" in fields else [f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def logged(self, rest: str) -> dict[str, str]:
        """Wait for the proxy's line about a request, and give it."""
        path = f"/jupyter/{self.number}{rest}"

        def found() -> list[dict[str, str]]:
            return [line for line in self.proxy.records("request") if line.get("path") == path]

        self.proxy.wait(found)
        return found()[0]


@pytest.fixture(scope="module")
def port() -> int:
    """Find a port that is free on every loopback address."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def api() -> Iterator[VisaApiServer]:
    """Run a VISA API."""
    with visa_api_thread() as server:
        yield server


@pytest.fixture(scope="module")
def front(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, port: int
) -> Iterator[tuple[Nginx, RunningProxy]]:
    """Run nginx in front of the proxy, with the services of production."""
    program()
    folder = tmp_path_factory.mktemp("site")
    routes = [
        {"match": rf"^{prefix}/(\d+).*", "type": "service", "name": prefix, "remotePort": port, "ws": True}
        for prefix in _SERVICES
    ]
    with (
        running_proxy(folder, api_url=api.url, routes=routes) as proxy,
        running_nginx(folder / "nginx", proxy.port) as nginx,
    ):
        yield nginx, proxy


@pytest.fixture
def site(front: tuple[Nginx, RunningProxy], api: VisaApiServer, port: int) -> Iterator[Site]:
    """Make a fresh instance."""
    number = next(_numbers)
    api.user(_TOKEN, "anna")
    with Instance(port) as instance:
        api.instance(number, owner="anna", ip=instance.host)
        yield Site(*front, instance, number)


class TestRequests:
    """What reaches the service."""

    @pytest.mark.parametrize("service", _SERVICES)
    @pytest.mark.parametrize("rest", ["/a//b///c?x=//y", "/a%2Fb%20c", "/x?", "/%7e+~;p=1", "/" + "x" * 6000])
    def test_the_target_arrives_byte_for_byte(self, site: Site, service: str, rest: str) -> None:
        """VISA Files really sends paths such as `/api/files//x`."""
        assert 200 == site.ask(site.request(rest, service=service)).status
        assert f"{service}/{site.number}{rest}".encode() == site.instance.requests[0].target

    def test_who_the_client_is(self, site: Site) -> None:
        """The browser's address, scheme and host, by nginx's own word; Host as it came."""
        site.ask(site.request("/x"))
        (request,) = site.instance.requests
        assert b"127.0.0.1" == request.one("x-real-ip")
        assert b"127.0.0.1, 127.0.0.1" == request.one("x-forwarded-for")
        assert b"https" == request.one("x-forwarded-proto")
        assert b"visa.example.org:8443" == request.one("x-forwarded-host") == request.one("host")
        assert b"_xsrf=1" == request.one("cookie")

    def test_what_a_browser_pretends_is_not_believed(self, site: Site) -> None:
        """Neither by the service nor by the proxy, whose log names the real client."""
        pretended = (
            "X-Forwarded-For: 10.9.9.9",
            "X-Real-IP: 10.9.9.9",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: evil.example.org",
            "X-Request-Id: theirs",
            "Forwarded: for=10.9.9.9",
        )
        answer = site.ask(site.request("/pretended", *pretended))
        (request,) = site.instance.requests
        assert b"10.9.9.9" not in request.head
        assert b"evil" not in request.head
        assert b"https" == request.one("x-forwarded-proto")
        request_id = (answer.one("x-request-id") or b"").decode()
        assert re.fullmatch(r"[0-9a-f]{32}", request_id)
        line = site.logged("/pretended")
        assert ("127.0.0.1", request_id) == (line["client"], line["request_id"])
        site.instance.wait(lambda: request_id in site.nginx.log)

    def test_a_large_body_is_not_refused(self, site: Site) -> None:
        """20 MB, where nginx's own limit is 1 MiB; it comes through unchanged, without a copy on disk."""
        body = bytes(range(256)) * (20_000_000 // 256)
        assert 200 == site.ask(site.request("/save", method="PUT", body=body)).status
        assert body == site.instance.requests[0].body
        assert [] == [*(site.nginx.folder / "body").rglob("*")]

    def test_a_large_head_is_not_refused(self, site: Site) -> None:
        """JupyterLab's policies are long: nginx's own limit is 4 KiB."""
        site.instance.answer(ok(b"", "Content-Security-Policy: " + "x" * 30_000))
        policy = site.ask(site.request("/x")).one("content-security-policy")
        assert policy is not None
        assert 30_000 == len(policy)

    def test_an_answer_comes_as_it_is_made(self, site: Site) -> None:
        """Progress of a cell, event streams: nothing waits in nginx for more."""
        has_come = threading.Event()

        def in_two_parts(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
            assert has_come.wait(20)
            connection.send(b"two")

        site.instance.play(in_two_parts)
        with site.nginx.connect() as sock:
            sock.sendall(site.request("/slow"))
            reader = Reader(sock)
            assert 200 == reader.message(no_body=True).status
            assert b"one" == reader.exactly(3)
            has_come.set()
            assert b"two" == reader.exactly(3)

    def test_its_connections_are_kept_for_the_next_request(self, site: Site) -> None:
        """By the proxy, until nginx closes them: who closes first must not be the one who is asked."""
        assert 200 == site.ask(site.request("/x")).status
        assert sum(int(state.get("downstream", 0)) for state in site.proxy.states()) >= 1
        found = re.search(
            r"^ +keepalive_timeout (\d+)s;$", (DEPLOY / "upstream.conf").read_text(), re.MULTILINE
        )
        assert found is not None
        assert float(found[1]) < float(str(Settings.model_fields["idle_timeout_s"].default))

    def test_no_secret_is_in_its_log(self, site: Site) -> None:
        """Printing has its own in the query, and the token is in the cookie."""
        answer = site.ask(site.request("/x?token=s3cr3t", service="/ws/print"))
        request_id = (answer.one("x-request-id") or b"").decode()
        site.instance.wait(lambda: request_id in site.nginx.log)
        assert f"/ws/print/{site.number}/x" in site.nginx.log
        assert "s3cr3t" not in site.nginx.log
        assert "ttttt" not in site.nginx.log


class TestWebSockets:
    """They open, and stay open."""

    @pytest.mark.parametrize("service", _SERVICES)
    def test_each_service_has_them(self, site: Site, service: str) -> None:
        """From this site's own page; bytes pass both ways, and the end is passed on."""

        def echo(connection: Connection) -> None:
            connection.accept_websocket()
            connection.send(connection.exactly(9))

        site.instance.play(echo)
        origin = "Origin: https://visa.example.org:8443"
        with site.nginx.connect() as sock:
            sock.sendall(site.request("/api/x", *_SOCKET, origin, service=service))
            reader = Reader(sock)
            assert 101 == reader.message(no_body=True).status
            sock.sendall(b"\x82\x83\0\0\0\0abc")
            assert b"\x82\x83\0\0\0\0abc" == reader.exactly(9)
            assert not reader.more()

    def test_a_page_of_another_site_opens_none(self, site: Site) -> None:
        """The proxy compares Origin with the host that nginx tells, whatever the page says."""
        foreign = ("Origin: https://evil.example.org", "X-Forwarded-Host: evil.example.org")
        assert 403 == site.ask(site.request("/api/x", *_SOCKET, *foreign)).status
        assert [] == site.instance.requests


def test_plain_http_is_sent_to_https(front: tuple[Nginx, RunningProxy]) -> None:
    """The token's cookie is Secure: it would not come."""
    nginx, _ = front
    plain = re.search(r"listen 127\.0\.0\.1:(\d+);", (nginx.folder / "visa.conf").read_text())
    assert plain is not None
    with socket.create_connection(("127.0.0.1", int(plain[1])), timeout=20) as sock:
        sock.sendall(b"GET /jupyter/7/lab?x HTTP/1.1\r\nHost: visa.example.org\r\n\r\n")
        answer = Reader(sock).message()
    assert (308, b"https://visa.example.org/jupyter/7/lab?x") == (answer.status, answer.one("location"))


def test_nothing_of_visa_is_in_the_way() -> None:
    """JupyterLab stands in a frame of VISA Web, and the three services are all that is taken from it."""
    text = "".join(path.read_text() for path in DEPLOY.glob("*.conf"))
    assert not re.search(r"^\s*add_header\s+X-Frame-Options", text, re.MULTILINE)
    (names,) = re.findall(r"\(\?:([^)]+)\)", text)
    assert set(_SERVICES) == {f"/{name}" for name in names.split("|")}
