"""Who gets through: tokens, forged tokens, and what the VISA API is asked."""

import base64
import json
import threading

import pytest

from support.client import RawClient, get, upgrade
from support.visa_api import Answer, Hold
from wire.conftest import Wire


def _jwt(claims: dict[str, object], signature: str = "c2lnbmF0dXJl") -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.{signature}"


def test_a_request_without_a_token(wire: Wire) -> None:
    """401 with `WWW-Authenticate: Bearer`, HTTP and WebSocket alike; neither API nor instance is asked."""
    asked = len(wire.api.requests)
    for data in (get(wire.path()), upgrade(wire.path())):
        response = wire.ask(data)
        assert (401, b"Bearer") == (response.status, response.one("www-authenticate"))
    assert asked == len(wire.api.requests)
    assert [] == wire.instance.requests


def test_a_forged_token_with_the_owners_claims(wire: Wire) -> None:
    """While the owner's grant is cached, a token with the same claims is asked of the API, as it came."""
    claims: dict[str, object] = {"sub": "owner", "employeeNumber": 7, "exp": 4e9}
    genuine, forged = _jwt(claims), _jwt(claims, "Zm9yZ2Vk")
    wire.api.user(genuine, f"user-{wire.number}")
    assert wire.ask(get(wire.path("/1"), token=genuine)).status == 200
    assert wire.ask(get(wire.path("/2"), token=forged)).status == 401
    assert forged == wire.api.asked("instance")[-1].token
    assert [b"/1"] == [request.target[-2:] for request in wire.instance.requests]


def test_another_user(wire: Wire) -> None:
    """404 for whoever is not the owner, as the API says."""
    wire.api.user(f"other-{wire.number}", "somebody-else")
    assert wire.ask(get(wire.path(), token=f"other-{wire.number}")).status == 404
    assert [] == wire.instance.requests


def test_services_are_protected_too(wire: Wire) -> None:
    """A route of type `service` asks for the same token."""
    assert wire.ask(get(f"/visafs/{wire.number}/x")).status == 401
    assert wire.ask(upgrade(f"/ws/print/{wire.number}/x")).status == 401


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Authorization: Bearer {token}"], 200),
        (["Authorization: bEaReR   {token}"], 200),
        (["Authorization: Bearer bad", "Cookie: access_token={token}"], 401),
        (["Authorization: Bearer {token}", "Cookie: access_token=bad"], 200),
        (["Authorization: Bearer", "Cookie: access_token={token}"], 401),
        (["Authorization: Bearer\t{token}"], 401),
        (["Authorization: Bearer {token}, Bearer x"], 401),
        (["Authorization: Basic eDp5", "Cookie: access_token={token}"], 200),
        (["Cookie: access_token={token}; access_token=bad"], 401),
        (["Cookie: access_token={token}", "Cookie: access_token={token}"], 200),
        (["Cookie: xaccess_token={token}"], 401),
        (['Cookie: access_token="{token}"'], 401),
    ],
)
def test_which_credential_decides(wire: Wire, fields: list[str], status: int) -> None:
    """A Bearer value, if present, decides alone; otherwise the cookie; what is ambiguous is no token."""
    written = [field.format(token=wire.token) for field in fields]
    assert status == wire.ask(get(wire.path(), *written)).status


def test_a_grant_is_reused(wire: Wire) -> None:
    """One question for many requests of one token and instance."""
    before = len(wire.api.asked("instance"))
    with wire.client() as client:
        assert {200} == {client.ask(wire.get()).status for _ in range(20)}
    assert before + 1 == len(wire.api.asked("instance"))


def test_a_refusal_is_remembered_briefly(wire: Wire) -> None:
    """A burst of refused requests is one question; soon after, a token that was let in works."""
    token = f"late-{wire.number}"
    before = len(wire.api.asked("instance"))
    assert {401} == {wire.ask(get(wire.path(), token=token)).status for _ in range(5)}
    assert before + 1 == len(wire.api.asked("instance"))
    wire.api.user(token, f"user-{wire.number}")
    wire.instance.wait(lambda: wire.ask(get(wire.path(), token=token)).status == 200)


def test_many_wait_for_one_question(wire: Wire) -> None:
    """A hundred first requests are one question, and it completes although the first asker leaves."""
    hold = Hold()
    wire.api.script("instance", Answer(hold=hold))
    before = len(wire.api.asked("instance"))
    first = wire.client()
    first.send(wire.get())
    wire.api.wait(lambda: len(wire.api.asked("instance")) > before)
    clients = [wire.client() for _ in range(99)]
    for client in clients:
        client.send(wire.get())
    first.reset()
    hold.release()
    assert [200] * 99 == [client.response().status for client in clients]
    for client in clients:
        client.sock.close()
    assert before + 1 == len(wire.api.asked("instance"))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(500), 502),
        (Answer(200, body=b"<html>"), 502),
        (Answer(200, body=b"null"), 502),
        (Answer(200, body=b'{"data":null}'), 502),
        (Answer(200, body=b'{"data":{"id":999999}}'), 502),
        (Answer(302), 502),
        (Answer(403), 404),
        (Answer(raw=b"garbage"), 502),
    ],
)
def test_an_api_that_answers_nonsense(wire: Wire, answer: Answer, status: int) -> None:
    """Nobody gets through, the instance is not contacted, and the status tells what is wrong."""
    wire.api.script("instance", answer)
    assert status == wire.ask(wire.get()).status
    assert [] == wire.instance.requests
    if status != 404:
        assert wire.ask(wire.get()).status == 200  # nothing of it is remembered


def test_an_api_that_is_away(wire: Wire) -> None:
    """503 while nobody answers there; afterwards all is well by itself."""
    wire.api.down()
    try:
        response = wire.ask(wire.get())
        assert (503, b"5") == (response.status, response.one("retry-after"))
    finally:
        wire.api.up()
    assert wire.ask(wire.get()).status == 200


def test_one_slow_question_delays_nobody_else(wire: Wire) -> None:
    """While the API keeps one user waiting, another one with a grant is served."""
    assert wire.ask(wire.get()).status == 200
    hold = Hold()
    wire.api.script("instance", Answer(hold=hold))
    slow = f"slow-{wire.number}"
    wire.api.user(slow, f"user-{wire.number}")
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(wire.ask(get(wire.path(), token=slow)).status))
    waiting.start()
    assert wire.ask(wire.get()).status == 200
    assert [] == answers
    hold.release()
    waiting.join(20)
    assert [200] == answers


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 -- what an attacker would send
        "224.0.0.1",
        "255.255.255.255",
        "10.0.0.12:22",
        "x@127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "127.0.0.01",
        " 127.0.0.1",
        "fe80::1%lo",
        "::ffff:169.254.1.1",
    ],
)
def test_an_address_where_no_instance_may_be(wire: Wire, address: str) -> None:
    """Only an IP address inside INSTANCE_NETWORKS is connected to; no name is resolved."""
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=address)
    response = wire.ask(wire.get())
    assert (502, True) == (response.status, b"instance_address" in response.body)


@pytest.mark.parametrize("count", [1000])
def test_nothing_there_a_thousand_times(wire: Wire, count: int) -> None:
    """`GET /nope` is a 404 with a body, as often as one likes."""
    with RawClient(wire.proxy.port) as client:
        assert {404} == {client.ask(get("/nope")).status for _ in range(count)}
    assert wire.proxy.is_alive()


def test_the_log_has_no_secret(wire: Wire) -> None:
    """One line for a request, with who, where and why; neither token nor query are in it."""
    assert wire.ask(wire.get("/secret-less?token=hidden-query")).status == 200
    name = wire.path("/secret-less")
    wire.proxy.wait(lambda: [r for r in wire.proxy.records("request") if r.get("path") == name])
    (record,) = [r for r in wire.proxy.records("request") if r.get("path") == name]
    assert (200, wire.number, "Jupyter", "127.0.0.1") == (
        record["status"],
        record["instance"],
        record["route"],
        record["client"],
    )
    log = wire.proxy.log.read_text()
    assert "hidden-query" not in log
    assert wire.token not in log
