"""From a target to an instance: the one that was authorised is the one that is contacted."""

from collections.abc import Iterator

import pytest

from support.client import get, upgrade
from support.instance import Instance
from wire.conftest import Wire


@pytest.fixture
def neighbour(wire: Wire) -> Iterator[int]:
    """Make an instance of somebody else, give its number, and see that nothing ever connects to it."""
    number = wire.number + 100_000
    with Instance(wire.instance.port) as instance:
        wire.api.instance(number, owner="somebody-else", ip=instance.host)
        before = len(wire.api.asked("instance"))
        yield number
        assert 0 == instance.connections
        asked = wire.api.asked("instance")[before:]
        assert f"/api/jupyter/instances/{number}" not in {request.path for request in asked}


def _raw(target: bytes, token: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: visa.test\r\nCookie: access_token=%b\r\n\r\n" % (target, token.encode())


@pytest.mark.parametrize(
    "rest",
    [
        "/a//b///c?x=//y",
        "/%2F%2f",
        "/%20+~@!$&'()*,;=:",
        "/a;p=1/b",
        "/x?",
        "/x??a",
        "/%41%7e%zz%",
        "/http:/x",
        "/http://10.0.0.13/x",
        "/x?u=http://10.0.0.13/../y&z=%00",
        "/{}|^`\\<>\"'",
    ],
)
def test_97_the_target_is_sent_byte_for_byte(wire: Wire, rest: str) -> None:
    """Nothing is decoded, encoded, merged or normalised."""
    assert wire.ask(wire.get(rest)).status == 200
    assert wire.path(rest).encode() == wire.instance.requests[0].target


@pytest.mark.parametrize("rest", ["", "?x=1", "/"])
def test_98_nothing_has_to_follow_the_id(wire: Wire, rest: str) -> None:
    """All three are for the instance."""
    assert wire.ask(wire.get(rest)).status == 200
    assert wire.path(rest).encode() == wire.instance.requests[0].target


@pytest.mark.parametrize("rest", ["abc/x", "%20/x", ";x/y", "..;/{}/", "%00/x", ".{}/x", "@{}/x", ",{}"])
def test_99_what_sticks_to_the_id(wire: Wire, neighbour: int, rest: str) -> None:
    """The pattern says where the id ends; that instance is asked about, contacted, and sent it all."""
    target = wire.path(rest.format(neighbour))
    assert wire.ask(get(target, token=wire.token)).status == 200
    assert [target.encode()] == [request.target for request in wire.instance.requests]
    assert f"/api/jupyter/instances/{wire.number}" == wire.api.asked("instance")[-1].path


@pytest.mark.parametrize(
    ("identifier", "status"),
    [
        (b"00{}", 404),
        (b"0{}", 404),
        (b"0", 404),
        (b"+{}", 404),
        (b"-{}", 404),
        (b" {}", 400),
        (b"%20{}", 404),
        (b"%D9%A1%D9%A2", 404),
        (b"%EF%BC%91%EF%BC%92", 404),
        ("\u0661\u0662".encode(), 400),
        ("\uff11\uff12".encode(), 400),
        (b"\xb2", 400),
    ],
    ids=repr,
)
def test_100_one_spelling_for_one_instance(wire: Wire, identifier: bytes, status: int) -> None:
    """ASCII digits without a leading zero, nothing else; the API is not asked."""
    asked = len(wire.api.requests)
    target = b"/jupyter/" + identifier.replace(b"{}", str(wire.number).encode()) + b"/x"
    assert status == wire.ask(_raw(target, wire.token)).status
    assert (asked, []) == (len(wire.api.requests), wire.instance.requests)


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1])
def test_101_a_large_id_is_exact(wire: Wire, number: int) -> None:
    """The API is asked for exactly that id, beyond what a double can hold."""
    wire.api.instance(number, owner=f"user-{wire.number}", ip=wire.instance.host)
    assert wire.ask(get(f"/jupyter/{number}/x", token=wire.token)).status == 200
    assert f"/api/jupyter/instances/{number}" == wire.api.asked("instance")[-1].path


@pytest.mark.parametrize("digits", [str(2**63), "1" * 23, "9" * 5000], ids=["int64+1", "23", "5000"])
def test_101_an_id_beyond_a_bigint_is_none(wire: Wire, digits: str) -> None:
    """404 without a question to the API."""
    asked = len(wire.api.requests)
    assert wire.ask(get(f"/jupyter/{digits}/x", token=wire.token)).status == 404
    assert asked == len(wire.api.requests)


@pytest.mark.parametrize(
    "dots",
    [
        "/../{}/api",
        "/./x",
        "/x/..",
        "/x/.",
        "/%2e%2e/{}/api",
        "/.%2e/{}/api",
        "/%2E./{}/api",
        "/..%2f{}/api",
        "/%2e%2e%2f{}/api",
        "/%252e%252e/{}/api",
        "/..%252f{}",
        "/..\\{}",
        "\\..\\{}",
        "/..%5c{}",
        "/..;/{}/api",
        "/..;a=b/{}/api",
        "/x;..;/{}",
        "/%c0%ae%c0%ae/{}/api",
        "/%e0%80%ae./{}",
        "/%25c0%25ae./{}",
    ],
)
class TestDotSegments:
    """What some server behind us could resolve to another instance."""

    @pytest.mark.parametrize("service", ["jupyter", "visafs", "ws/print"])
    def test_103_in_the_path(self, wire: Wire, neighbour: int, service: str, dots: str) -> None:
        """400, whatever the route; nobody is asked and nobody is contacted."""
        asked = len(wire.api.requests)
        target = f"/{service}/{wire.number}{dots.format(neighbour)}"
        for make in (get, upgrade):
            assert wire.ask(make(target, token=wire.token)).status == 400
        assert (asked, 0) == (len(wire.api.requests), wire.instance.connections)

    def test_103_in_the_query(self, wire: Wire, neighbour: int, dots: str) -> None:
        """It means nothing there, and goes on."""
        rest = "/x?file=" + dots.format(neighbour)
        assert wire.ask(wire.get(rest)).status == 200
        assert wire.path(rest).encode() == wire.instance.requests[0].target


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/%6aupyter/{}/x", 404),
        ("/%4aupyter/{}/x", 404),
        ("/jupyter%2f{}/x", 404),
        ("/jupyter%2F{}/x", 404),
        ("/JUPYTER/{}/x", 404),
        ("/jupyter//{}/x", 404),
        ("//jupyter/{}/x", 404),
        ("/x/jupyter/{}/x", 404),
        ("/?/jupyter/{}/x", 404),
        ("/./jupyter/{}/x", 400),
        ("/x/../jupyter/{}/x", 400),
    ],
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_104_105_another_spelling_of_a_service_is_none(
    wire: Wire, target: str, status: int, signed_in: bool
) -> None:
    """With and without a token: no spelling is served by a rule that asks for less."""
    asked = len(wire.api.requests)
    token = wire.token if signed_in else None
    assert status == wire.ask(get(target.format(wire.number), token=token)).status
    assert (asked, 0) == (len(wire.api.requests), wire.instance.connections)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/visafs/{}/a", "/a"),
        ("/visafs/{}/a?b=/visafs/{}/c", "/a?b=/visafs/{}/c"),
        ("/visafs/{}", "/visafs/{}"),
        ("/visafs/{}?x", "/visafs/{}?x"),
        ("/visafs/{}?/visafs/{}/x", "/visafs/{}?/visafs/{}/x"),
        ("/visafs/{}/", "/"),
        ("/visafs/{}//evil.com/x", "//evil.com/x"),
        ("/visafs/{}/http://evil.com/x", "/http://evil.com/x"),
        ("/visafs/{}/visafs/{}/a", "/visafs/{}/a"),
        ("/visafs/{}abc/a", "/visafs/{}abc/a"),
        ("/ws/print/{}/?EIO=4&transport=websocket", "/socket.io/?EIO=4&transport=websocket"),
        ("/ws/print/{}", "/ws/print/{}"),
    ],
)
def test_106_a_rewritten_target(wire: Wire, target: str, sent: str) -> None:
    """The first rule that matches is applied, once; the instance stays the one of the path."""
    number = str(wire.number)
    assert wire.ask(get(target.replace("{}", number), token=wire.token)).status == 200
    assert [sent.replace("{}", number).encode()] == [request.target for request in wire.instance.requests]


@pytest.mark.parametrize(
    "rest",
    ["/%0d%0aX-Evil:%201", "/x?%0d%0aX-Evil:%201", "/%0D%0A%0D%0AGET%20/%20HTTP/1.1", "/%250d%250aX-Evil:1"],
)
@pytest.mark.parametrize("service", ["jupyter", "visafs"])
def test_107_encoded_line_breaks_stay_encoded(wire: Wire, service: str, rest: str) -> None:
    """One request without a new field at the instance, with and without a rewrite."""
    assert wire.ask(get(f"/{service}/{wire.number}{rest}", token=wire.token)).status == 200
    (seen,) = wire.instance.requests
    assert seen.target.endswith(rest.encode())
    assert seen.one("x-evil") is None


@pytest.mark.parametrize("target", ["/", "/nope", "/jupyter/", "/jupyter/abc", "/metrics", "/health"])
def test_108_nothing_there_a_thousand_times(wire: Wire, target: str) -> None:
    """A 404 with a body, as often as one likes, and the process lives."""
    with wire.client() as client:
        responses = (client.ask(get(target)) for _ in range(1000))
        answers = {(response.status, response.body != b"") for response in responses}
    assert {(404, True)} == answers
    assert wire.proxy.is_alive()


@pytest.mark.parametrize("agent", ["kube-probe/1.29", "GoogleHC/1.0", "ELB-HealthChecker/2.0"])
def test_110_a_health_check_is_nobody(wire: Wire, agent: str) -> None:
    """What a request calls itself opens nothing: 401."""
    assert wire.ask(get(wire.path(), f"User-Agent: {agent}")).status == 401
    assert 0 == wire.instance.connections
