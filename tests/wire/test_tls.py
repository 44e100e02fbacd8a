"""Services that speak TLS: verified against `remoteCa`, unless `remoteVerify: false` is written out."""

import os
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from support.client import RawClient, get, upgrade
from support.instance import Connection, Instance, ok, switching
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer, visa_api_thread
from visa_jupyter_proxy.worker.crowds import MOST_AT_ONCE

NUMBER = 5
TOKEN = "token-of-anna"


def _serve_tls(instance: Instance, authority: trustme.CA, name: str, body: bytes = b"through TLS") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    def script(connection: Connection) -> None:
        try:
            connection.sock = context.wrap_socket(connection.sock, server_side=True)
        except (ssl.SSLError, ConnectionError):
            return  # the proxy did not like the certificate
        while (request := connection.request()).one("upgrade") is None:
            connection.send(ok(body))
        connection.send(switching(request))
        connection.echo()

    instance.play(script)


@pytest.fixture(scope="module", autouse=True)
def given_back() -> None:
    """Look at no proxy that others share: each test has its own."""


@pytest.fixture
def api() -> Iterator[VisaApiServer]:
    """Run a scripted VISA API with one user."""
    with visa_api_thread() as server:
        server.user(TOKEN, "anna")
        yield server


@pytest.fixture
def start(tmp_path: Path, api: VisaApiServer, instance_port: int) -> Iterator["Starter"]:
    """Prepare an instance and a proxy with one TLS route."""
    with Instance(instance_port) as instance, ExitStack() as stack:
        api.instance(NUMBER, owner="anna", ip=instance.host)
        yield Starter(tmp_path, api, instance, stack)


class Starter:
    """Starts the proxy with a route that a test chooses."""

    def __init__(self, directory: Path, api: VisaApiServer, instance: Instance, stack: ExitStack) -> None:
        self.directory = directory
        self.instance = instance
        self._api = api
        self._stack = stack

    def proxy(self, *others: dict[str, object], **keys: object) -> RunningProxy:
        """Run a proxy whose first route has these further keys."""
        route = {"match": r"^/jupyter/(\d+).*", "type": "jupyter", "name": "Jupyter", "ws": True}
        routes = [{**route, "remotePort": self.instance.port, "remoteScheme": "https", **keys}, *others]
        return self._stack.enter_context(running_proxy(self.directory, api_url=self._api.url, routes=routes))

    def authority(self) -> trustme.CA:
        """Make an authority, whose certificate is `ca.pem` beside the configuration."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        return authority


def _ask(proxy: RunningProxy) -> tuple[int, bytes]:
    with RawClient(proxy.port) as client:
        response = client.ask(get(f"/jupyter/{NUMBER}/x", token=TOKEN))
        return response.status, response.body


def test_a_verified_service(start: Starter) -> None:
    """A certificate of `remoteCa` for the instance's address is accepted, for HTTP and WebSockets."""
    _serve_tls(start.instance, start.authority(), start.instance.host)
    proxy = start.proxy(remoteCa="ca.pem")
    assert (200, b"through TLS") == _ask(proxy)
    with RawClient(proxy.port) as client:
        assert client.ask(upgrade(f"/jupyter/{NUMBER}/ws", token=TOKEN)).status == 101
        client.send(b"hello")
        assert b"hello" == client.exactly(5)


def test_large_bodies(start: Starter) -> None:
    """They pass through the process, both ways: the kernel cannot move what it does not understand."""
    body = bytes(range(251)) * 20_000
    _serve_tls(start.instance, start.authority(), start.instance.host, body)
    proxy = start.proxy(remoteCa="ca.pem")
    with RawClient(proxy.port) as client:
        for _ in range(2):
            fields = f"Content-Length: {len(body)}"
            client.send(get(f"/jupyter/{NUMBER}/x", fields, token=TOKEN, method="PUT") + body)
            assert body == client.response().body
    assert [body] * 2 == [request.body for request in start.instance.requests]


def test_services_that_switch_and_close_in_one_moment(start: Starter) -> None:
    """Also those whose answers wait for their turn: each client gets its 101, and the end behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    start.authority().issue_cert(start.instance.host).configure_cert(context)
    go = threading.Event()

    def switch_and_close(connection: Connection) -> None:
        connection.sock = context.wrap_socket(connection.sock, server_side=True)
        asked = connection.request_head()
        assert go.wait(60)
        connection.send(switching(asked))
        start.instance.received.append(asked.target)
        connection.sock.unwrap()

    start.instance.play(switch_and_close)
    proxy = start.proxy(remoteCa="ca.pem")
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(3 * MOST_AT_ONCE)]
        for client in crowd:
            client.send(upgrade(f"/jupyter/{NUMBER}/ws", token=TOKEN))
        start.instance.wait(lambda: len(start.instance.requests) == len(crowd))
        os.kill(proxy.worker_pid, signal.SIGSTOP)
        go.set()
        start.instance.wait(lambda: len(start.instance.received) == len(crowd))
        os.kill(proxy.worker_pid, signal.SIGCONT)
        assert {101} == {client.response().status for client in crowd}
        assert all(client.closed() for client in crowd)
    proxy.wait(lambda: len(proxy.records("tunnel")) == len(crowd))
    assert {None} == {record.get("reason") for record in proxy.records("tunnel")}


@pytest.mark.parametrize("what", ["another authority", "another address", "the system's authorities"])
def test_a_certificate_that_does_not_fit(start: Starter, what: str) -> None:
    """502, and no request is sent."""
    authority = start.authority()
    name = "127.99.99.99" if what == "another address" else start.instance.host
    _serve_tls(start.instance, trustme.CA() if what == "another authority" else authority, name)
    keys = {} if what == "the system's authorities" else {"remoteCa": "ca.pem"}
    status, body = _ask(start.proxy(**keys))
    assert (502, True) == (status, b"instance_invalid" in body)
    assert [] == start.instance.requests


def test_verification_switched_off(start: Starter) -> None:
    """`remoteVerify: false` takes any certificate."""
    _serve_tls(start.instance, trustme.CA(), "127.99.99.99")
    assert (200, b"through TLS") == _ask(start.proxy(remoteVerify=False))


def test_a_name_that_two_routes_have(start: Starter) -> None:
    """A name is for people: what another route says of TLS is not for this one."""
    _serve_tls(start.instance, start.authority(), start.instance.host)
    other = {"match": r"^/other/(\d+)", "type": "service", "name": "Jupyter", "remotePort": 80}
    assert (200, b"through TLS") == _ask(start.proxy(other, remoteCa="ca.pem"))
