"""What a service says of places, as the browser must see it."""

import pytest

from visa_jupyter_proxy.routes import Match, Rewrite, Route, Router
from visa_jupyter_proxy.worker.forwarding.references import public_cookie, public_location

JUPYTER = Route(match=r"^/jupyter/(\d+).*", type="jupyter", name="Jupyter", remote_port=8888)
FILES = Route(
    match=r"^/visafs/(\d+).*",
    type="service",
    name="Files",
    remote_port=8090,
    path_rewrite=(Rewrite(r"^/visafs/\d+/", "/"),),
)
PRINT = Route(
    match=r"^/ws/print/(\d+).*",
    type="service",
    name="Print",
    remote_port=8091,
    path_rewrite=(Rewrite(r"^/ws/print/\d+/", "/socket.io/"),),
)
ROUTER = Router([JUPYTER, FILES, PRINT])


def _match(target: str) -> Match:
    return ROUTER.match(target.encode(), websocket=False)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        # Nothing is rewritten: paths are the browser's own already.
        ("/jupyter/12/x", "/jupyter/12/lab?", "/jupyter/12/lab?"),
        ("/jupyter/12/x", "lab", "lab"),
        ("/jupyter/12/x", "../y", "../y"),
        ("/jupyter/12/x", "/elsewhere", "/elsewhere"),
        ("/jupyter/12/x", "?a=1", "?a=1"),
        ("/jupyter/12/x", "https://orcid.org/oauth", "https://orcid.org/oauth"),
        ("/jupyter/12/x", "https://visa.test/jupyter/12/lab", "https://visa.test/jupyter/12/lab"),
        # What names the inside of the network loses that name.
        ("/jupyter/12/x", "http://10.0.0.12:8888/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "//10.0.0.12/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "http:/10.0.0.12/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "\\\\10.0.0.12\\lab", "/lab"),
        ("/jupyter/12/x", "http://localhost:8888", "/"),
        ("/jupyter/12/x", "http://192.168.7.7:80/x", "/x"),
        ("/jupyter/12/x", "http://user@10.0.0.12/x", "/x"),
        ("/jupyter/12/x", "http://[fd00::1]:8888/x", "/x"),
        ("/jupyter/12/x", "http://10.0.0.12//evil.test/x", "/evil.test/x"),
        # Rewritten: mapped back through the rewrite of this very request.
        ("/visafs/12/a/b", "/c?d=1", "/visafs/12/c?d=1"),
        ("/visafs/12/a/b", "/visafs/12/c", "/visafs/12/c"),
        ("/visafs/12/a/b", "/visafs/123/c", "/visafs/12/visafs/123/c"),
        ("/visafs/12/", "/", "/visafs/12/"),
        ("/visafs/12/a", "http://10.0.0.12:8090/c", "/visafs/12/c"),
        ("/visafs/12/a", "https://visa.test/c", "/visafs/12/c"),
        ("/visafs/12", "/c", "/c"),
        ("/ws/print/12/x", "/socket.io/y", "/ws/print/12/y"),
        ("/ws/print/12/x", "/login", "/login"),
        # Dot segments are resolved as the service would, so that they do not leave it (RFC 3986 5.2.4).
        ("/visafs/12/a/b", "/../../jupyter/13", "/visafs/12/jupyter/13"),
        ("/visafs/12/a/b", "/c/./d/../e?f=/../g#/../h", "/visafs/12/c/e?f=/../g#/../h"),
        ("/visafs/12/a/b", "/%2E%2e/c/.%2e", "/visafs/12/"),
        ("/visafs/12/a/b", "/..\\../c", "/visafs/12/c"),
        ("/visafs/12/a/b", "\\c", "/visafs/12/c"),
        ("/visafs/12/a/b", "/.\t./c", "/visafs/12/c"),
        ("/visafs/12/a/b", "/visafs/12/../../jupyter/13", "/visafs/12/jupyter/13"),
        ("/visafs/12/a/b", "/visafs/12/c/../d", "/visafs/12/d"),
        ("/visafs/12/a/b", "../../../../jupyter/13", "/visafs/12/jupyter/13"),
        ("/visafs/12/a/b?c=/d/e", "../x", "/visafs/12/x"),
        ("/visafs/12/a/b", "./x", "/visafs/12/a/x"),
        ("/visafs/12/a/b", "..", "/visafs/12/"),
        ("/visafs/12/a/b", "?../..", "?../.."),
        ("/visafs/12/a/b", "x..y/z.", "x..y/z."),
        ("/visafs/12/a/b", "mailto:../x", "mailto:../x"),
        ("/visafs/12/a/b", "/..//evil.test/x", "/visafs/12//evil.test/x"),
        ("/visafs/12/a/b", "http://10.0.0.12:8090/../c", "/visafs/12/c"),
        ("/ws/print/12/x", "/socket.io/../login", "/socket.io/../login"),
        ("/ws/print/12/x", "/login/../socket.io/y", "/ws/print/12/y"),
        # Elsewhere a path is the site's own: it may lead anywhere on it, as any link may.
        ("/jupyter/12/x", "/../../jupyter/13", "/../../jupyter/13"),
        ("/jupyter/12/x", "../../13/x", "../../13/x"),
        ("/jupyter/12/x", "http://10.0.0.12/../13", "/../13"),
        # An internal address that is another's: what is left is a path of the site.
        ("/jupyter/12/x", "http://10.0.0.13:9999/x", "/x"),
        ("/visafs/12/x", "http://10.0.0.13:9999/x", "/visafs/12/x"),
    ],
)
def test_locations(target: str, value: str, expected: str) -> None:
    """A Location leads the browser to where the service meant, through the proxy, and shows no inside."""
    mapped = public_location(value.encode(), _match(target), "10.0.0.12", b"visa.test")
    assert expected == mapped.decode()


_INSIDE = [
    *("10.0.0.12", "010.0.0.12", "10.0.0.012", "0xa.0.0.12", "0XA.12", "10.12", "167772172", "0x0a00000c"),
    *("127.0.0.012", "127.0.0.1.", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "2130706444", "0x7f000001"),
    *("000000000000000177.1", "0x00000000000000007f.1", "0", "0x", "127.0.0.0x1", "localhost", "LOCALHOST."),
    *(
        "a.localhost",
        "127%2e0.0.1",
        "%31%32%37.1",
        "%6cocalhost",
        "192.168.7.7:",
        "user:pw@127.1:80",
        "a@b@127.1",
    ),
    *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "127\uff0e1", "12\u00ad7.1", "loc\u200balhost"),
    *(
        "[::1]",
        "[::ffff:10.0.0.12]",
        "[::ffff:a00:c]",
        "[fd00::1]:8888",
        "[fe80::1%25eth0]",
        "[::]",
        "[0:0::1]",
    ),
    *("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "\t1\t27.1"),
    "0.0.0.0",
    *("a" * 2000, "0" * 60_000 + "177.1"),
]
_OUTSIDE = [
    *("visa.test.evil.com", "8.8.8.8", "010.8.8.8.com", "1.2.3.4.5", "127.0.0.1.evil.test", "127.0.0.256"),
    *(
        "127.0.0x100000000",
        "4294967296",
        "09.1.2.3x",
        "0x7g.1",
        "1_27.0.0.1",
        "+127.1",
        "localhost.evil.test",
    ),
    *(
        "[2606:4700::1111]:443",
        "\u00e9clair.test",
        "127.0.0.1@evil.test",
        "10.0.0.12:80@evil.test",
        "mylocalhost",
    ),
]


@pytest.mark.parametrize("scheme", ["http://", "HTTPS:", "//", "/\\", "ws://", "ftp:/", "other://"])
@pytest.mark.parametrize("host", _INSIDE, ids=lambda host: ascii(host)[:30])
def test_96_no_spelling_of_the_inside(scheme: str, host: str) -> None:
    """Whatever browsers and libraries read as an address of the network (WHATWG URL 3.5, inet_aton)."""
    value = f"{scheme}{host}/lab".encode()
    assert b"/lab" == public_location(value, _match("/jupyter/12/x"), "10.0.0.12", b"visa.test")


@pytest.mark.parametrize("host", _OUTSIDE, ids=lambda host: ascii(host)[:30])
def test_96_the_world_is_left_alone(host: str) -> None:
    """What only looks like an address, and those of others."""
    value = f"https://{host}/lab".encode()
    assert value == public_location(value, _match("/jupyter/12/x"), "10.0.0.12", b"visa.test")


def test_96_an_instance_with_an_address_of_the_world() -> None:
    """It is inside all the same, in any spelling."""
    match = _match("/jupyter/12/x")
    for host in (b"8.8.8.8", b"0x8.8.8.8", b"[::ffff:8.8.8.8]"):
        assert b"/lab" == public_location(b"http://" + host + b"/lab", match, "8.8.8.8", b"visa.test")
    assert b"/lab" == public_location(b"http://[2606:4700:0::1]/lab", match, "2606:4700::1", None)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("/jupyter/12/x", "a=1; Path=/jupyter/12/; HttpOnly", "a=1; HttpOnly; Path=/jupyter/12/"),
        ("/jupyter/12/x", "a=1; Path=/", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; path=/jupyter/13", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Path=/jupyter/123", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Domain=visa.test; Secure", "a=1; Secure"),
        ("/jupyter/12/x", "a=1", "a=1"),
        ("/jupyter/12", "a=1", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Path=relative", "a=1"),
        ("/jupyter/12/x", "a=1; Path=/jupyter/12/; Path=/", "a=1; Path=/jupyter/12"),
        ("/visafs/12/a", "a=1; Path=/", "a=1; Path=/visafs/12/"),
        ("/visafs/12/a", "a=1; Path=/sub", "a=1; Path=/visafs/12/sub"),
        ("/ws/print/12/a", "io=1; Path=/", "io=1; Path=/ws/print/12"),
    ],
)
def test_cookies(target: str, value: str, expected: str) -> None:
    """A cookie stays with its instance: inside the public prefix, and on this host alone (case 95)."""
    assert expected == public_cookie(value.encode(), _match(target), target.encode()).decode()


def test_95_attributes_without_end() -> None:
    """Thirty-two are read, and no more sent on, so that none behind them is overlooked."""
    attributes = [f"; a{number}" for number in range(32)]
    value = "".join(["a=1", *attributes, "; Domain=visa.test; Path=/" + ";" * 60_000])
    mapped = public_cookie(value.encode(), _match("/jupyter/12/x"), b"/jupyter/12/x").decode()
    assert "".join(["a=1", *attributes]) == mapped
