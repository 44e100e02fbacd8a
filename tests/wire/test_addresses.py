"""Where an instance may be: only what the API says, only an IP address, only where instances are."""

import errno
import socket
from collections.abc import Iterator

import pytest

from support.client import RawClient, get
from support.instance import Instance, ok
from support.proxy import RunningProxy, running_proxy
from support.visa_api import Answer, VisaApiServer
from wire.conftest import Wire, production


@pytest.fixture
def listener(instance_port: int) -> Iterator[socket.socket]:
    """Listen on 127.0.0.1, at the port of the services: whoever resolves a name would come here."""
    with socket.create_server(("127.0.0.1", instance_port)) as sock:
        sock.settimeout(0)
        yield sock
        with pytest.raises(BlockingIOError):
            sock.accept()


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy with the default INSTANCE_NETWORKS."""
    directory = tmp_path_factory.mktemp("strict")
    routes = production(instance_port)
    with running_proxy(directory, api_url=api.url, routes=routes, INSTANCE_NETWORKS="") as running:
        yield running


@pytest.mark.parametrize("given", [None, "", "missing"], ids=repr)
def test_198_no_address_yet(wire: Wire, given: str | None) -> None:
    """503 with Retry-After, and nothing is cached: once there is an address, the next request gets there."""
    if given == "missing":
        body = b'{"data":{"id":%d,"state":"BUILDING"}}' % wire.number
        wire.api.script("instance", Answer(200, body=body))
    else:
        wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=given, state="BUILDING")
    response = wire.ask(wire.get())
    assert (503, b"5") == (response.status, response.one("retry-after"))
    assert b"instance_not_ready" in response.body
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=wire.instance.host)
    assert 200 == wire.ask(wire.get()).status


def _refused(proxy: RunningProxy, wire: Wire, address: str) -> None:
    """See that nobody is connected to an address, and that no word of it leaves."""
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=address)
    with RawClient(proxy.port) as client:
        response = client.ask(wire.get())
    assert (502, True) == (response.status, b"instance_address" in response.body)
    assert address.strip().encode() not in response.head + response.body


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0.0.0.0",
        "0.0.0.1",
        "::",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "::1%lo",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::FFFF:169.254.169.254",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "ff02::1",
        "255.255.255.255",
        "::ffff:255.255.255.255",
    ],
)
def test_199_where_no_instance_may_be(
    wire: Wire, strict: RunningProxy, listener: socket.socket, address: str
) -> None:
    """Loopback, link-local, multicast, unspecified and broadcast addresses, mapped ones too: 502."""
    assert listener.fileno() >= 0
    _refused(strict, wire, address)


def test_199_the_instance_itself_at_loopback(wire: Wire, strict: RunningProxy) -> None:
    """The very address that is served when INSTANCE_NETWORKS lists it is refused when it does not."""
    assert 200 == wire.ask(wire.get()).status
    connections = wire.instance.connections
    _refused(strict, wire, wire.instance.host)
    assert connections == wire.instance.connections


@pytest.mark.parametrize("address", ["10.0.0.12", "169.254.169.254", "::ffff:10.0.0.12", "fd00::12"])
def test_199_only_the_networks_that_are_listed(wire: Wire, address: str) -> None:
    """INSTANCE_NETWORKS replaces the default: what it does not list is refused."""
    _refused(wire.proxy, wire, address)


def test_199_a_mapped_address_is_its_ipv4_one(wire: Wire) -> None:
    """It is allowed where the IPv4 address is, and it is that one which is connected to."""
    owner = f"user-{wire.number}"
    wire.api.instance(wire.number, owner=owner, ip=f"::ffff:{wire.instance.host}")
    assert 200 == wire.ask(wire.get()).status
    assert 1 == wire.instance.connections


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:22",
        "127.0.0.1/x",
        "127.0.0.1/32",
        "x@127.0.0.1",
        "localhost",
        "evil.example",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.01",
        "010.0.0.1",
        " 127.0.0.1",
        "127.0.0.1 ",
        "127.0.0.1\r\n",
        "127.0.0.1\0",
        "127.0.0.1.",
        "[::1]",
        "http://127.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "1" * 10_000,
    ],
    ids=lambda address: repr(address)[:30],
)
def test_200_what_is_no_address(wire: Wire, listener: socket.socket, address: str) -> None:
    """502: no name is resolved, and no spelling that only some libraries read; loopback is allowed here."""
    assert listener.fileno() >= 0
    _refused(wire.proxy, wire, address)


@pytest.mark.parametrize("given", [12, 2130706433, ["127.0.0.1"], {"v4": "127.0.0.1"}, True], ids=repr)
def test_200_what_is_no_text(wire: Wire, listener: socket.socket, given: object) -> None:
    """An address that is no string makes the answer of the API invalid: 502."""
    assert listener.fileno() >= 0
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ipAddress=given)
    assert 502 == wire.ask(wire.get()).status


def test_201_an_ipv6_address(wire: Wire) -> None:
    """It works, and is bracketed where it becomes the Host of a request that had none."""
    try:
        listener = socket.create_server(("::1", wire.instance.port), family=socket.AF_INET6)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip("this machine has no IPv6")
        raise
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip="0:0:0:0:0:0:0:1")
    request = f"GET {wire.path()} HTTP/1.0\r\nCookie: access_token={wire.token}\r\n\r\n"
    with listener, wire.client() as client:
        client.send(request.encode())
        listener.settimeout(20)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            connection.sendall(ok())
            assert 200 == client.response().status
    assert b"\r\nHost: [::1]\r\n" in head


def test_201_an_address_that_another_instance_had(wire: Wire) -> None:
    """A kept connection belongs to an address: an instance that has moved is not reached by the old one."""
    assert 200 == wire.ask(wire.get("/1")).status
    with Instance(wire.instance.port) as moved:
        token = f"second-{wire.number}"
        wire.api.user(token, f"user-{wire.number}")
        wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=moved.host)
        assert 200 == wire.ask(get(wire.path("/2"), token=token)).status
        assert [b"/2"] == [request.target[-2:] for request in moved.requests]
