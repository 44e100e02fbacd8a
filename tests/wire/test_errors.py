"""What is told when a request cannot be served, and what is recorded of every request."""

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.client import Message, get, upgrade
from support.instance import Connection, ok, switching
from support.pages import SHIPPED
from support.visa_api import Answer
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.identifiers import storable
from wire.conftest import Wire

MARK = "m4rk3r"
"""Stands wherever a client or an API may write something: none of it may come back."""

TEXTS = {
    kind.error: (kind.status, kind.message)
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ProxyError) and kind is not errors.ProxyError
}


@dataclass
class Failure:
    """A request that cannot be served, and why."""

    error: str
    request: Callable[[Wire], bytes]
    prepare: Callable[[Wire], None] = field(default=lambda _: None)
    page: str | None = None
    """The page, where the state of the instance explains it."""


def _owned(**fields: object) -> Callable[[Wire], None]:
    def prepare(wire: Wire) -> None:
        shown: dict[str, Any] = {"name": f"<b>{MARK}</b>", **fields}
        wire.api.instance(wire.number, owner=f"user-{wire.number}", **shown)

    return prepare


def _answers(answer: Answer) -> Callable[[Wire], None]:
    return lambda wire: wire.api.script("instance", answer)


def _says(data: bytes) -> Callable[[Wire], None]:
    def script(connection: Connection) -> None:
        connection.request()
        connection.send(data)
        connection.finish()
        connection.rest()

    return lambda wire: wire.instance.play(script)


def _silent(connection: Connection) -> None:
    connection.request()
    connection.rest()


def _owner(wire: Wire) -> bytes:
    return wire.get(f"/{MARK}?{MARK}", f"X-Mark: {MARK}")


def _with(*fields: str, **how: str) -> Callable[[Wire], bytes]:
    return lambda wire: wire.get(f"/{MARK}?{MARK}", *fields, **how)


FAILURES = {
    "garbage": Failure("bad_request", lambda _: b"\x16\x03\x01" + MARK.encode() + b"\r\n\r\n"),
    "field": Failure("bad_request", _with(f"{MARK} : 1")),
    "dots": Failure("bad_request", lambda wire: wire.get(f"/../{MARK}")),
    "no token": Failure("no_token", lambda wire: get(wire.path(f"/{MARK}"))),
    "no token, websocket": Failure("no_token", lambda wire: upgrade(wire.path(f"/{MARK}"))),
    "origin": Failure(
        "origin_not_allowed",
        lambda wire: upgrade(wire.path(), f"Origin: https://{MARK}.test", token=wire.token),
    ),
    "route": Failure("no_route", lambda _: get(f"/{MARK}<script>alert(1)</script>")),
    "method": Failure("method_not_allowed", _with(method="TRACE")),
    "long target": Failure("target_too_long", lambda wire: wire.get("/" + MARK * 2000)),
    "expectation": Failure("expectation_failed", _with(f"Expect: {MARK}")),
    "websocket version": Failure(
        "websocket_version",
        lambda wire: upgrade(wire.path(), token=wire.token).replace(b"Version: 13", b"Version: 8"),
    ),
    "large head": Failure("head_too_large", _with(f"X: {MARK * 10_000}")),
    "long method": Failure("not_implemented", _with(method=MARK.upper() * 7)),
    "version": Failure(
        "version_not_supported", lambda wire: wire.get(f"/{MARK}").replace(b"HTTP/1.1", b"HTTP/2.0")
    ),
    "token": Failure("token_rejected", lambda wire: get(wire.path(), token=f"{MARK}-{wire.number}")),
    "not the owner": Failure(
        "instance_not_found", _owner, lambda wire: wire.api.instance(wire.number, owner="somebody-else")
    ),
    "api 500": Failure("visa_invalid", _owner, _answers(Answer(500, body=MARK.encode()))),
    "api nonsense": Failure("visa_invalid", _owner, _answers(Answer(200, body=MARK.encode()))),
    "no address": Failure("instance_not_ready", _owner, _owned(ip=None, state="BUILDING"), "building"),
    "stopping": Failure("instance_stopped", _owner, _owned(ip="127.0.0.3", state="STOPPING"), "stopping"),
    "stopped": Failure("instance_stopped", _owner, _owned(ip="127.0.0.3", state="STOPPED")),
    "failed": Failure("instance_failed", _owner, _owned(ip="127.0.0.3", state="ERROR")),
    "deleted": Failure("instance_deleted", _owner, _owned(ip="127.0.0.3", state="DELETED")),
    "deleted, no address": Failure("instance_deleted", _owner, _owned(ip=None, state="DELETING")),
    "address": Failure("instance_address", _owner, _owned(ip=f"{MARK}.example")),
    "refused": Failure("instance_unreachable", _owner, _owned(ip="127.0.0.3"), "silent"),
    "not yet": Failure(
        "instance_unreachable", _owner, _owned(ip="127.0.0.3", activeProtocols=[]), "unanswered"
    ),
    "refused, websocket": Failure(
        "instance_unreachable", lambda wire: upgrade(wire.path(), token=wire.token), _owned(ip="127.0.0.3")
    ),
    "silent": Failure("instance_unreachable", _owner, _says(b"")),
    "nonsense": Failure("instance_invalid", _owner, _says(MARK.encode() + b"\r\n\r\n")),
    "half a head": Failure("instance_invalid", _owner, _says(b"HTTP/1.1 200 OK\r\nX: " + MARK.encode())),
}
"""All but those that take a time-out, a limit of a route or a full queue: these have cases of their own."""

NO_REQUEST = {
    *("garbage", "field", "method", "long target", "expectation", "websocket version"),
    *("long method", "version"),
}
"""What is refused before there is a request that could say who asks."""
FOR_PROGRAMS = {name for name in FAILURES if name in NO_REQUEST or name == "origin" or "websocket" in name}
FOR_PEOPLE = {name: failure for name, failure in FAILURES.items() if name not in FOR_PROGRAMS}

each = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


def _fail(wire: Wire, failure: Failure) -> Message:
    failure.prepare(wire)
    return wire.ask(failure.request(wire))


class TestErrors:
    """What a program or a person is told."""

    @each
    def test_203_204_fixed_texts(self, wire: Wire, failure: Failure) -> None:
        """Status and text of that reason as JSON, not to be stored or guessed at; nothing else is in it."""
        response = _fail(wire, failure)
        status, message = TEXTS[failure.error]
        assert status == response.status
        request_id = (response.one("x-request-id") or b"").decode()
        assert {"error": failure.error, "message": message, "requestId": request_id} == json.loads(
            response.body
        )
        assert (b"application/json", b"nosniff", b"no-store") == (
            response.one("content-type"),
            response.one("x-content-type-options"),
            response.one("cache-control"),
        )

    @each
    def test_203_204_nothing_is_reflected(self, wire: Wire, failure: Failure) -> None:
        """No address, nothing of the request, of the API's answer or of an exception; frames are allowed."""
        response = _fail(wire, failure)
        # The request's own id may have the digits of a port in it.
        told = (response.head + response.body).replace(response.one("x-request-id") or b"", b"").lower()
        secrets = (MARK, wire.instance.host, "127.0.0.", str(wire.instance.port), wire.token, "script")
        assert [] == [secret for secret in secrets if secret.encode() in told]
        assert [] == [word for word in (b"traceback", b"errno", b"exception", b".py") if word in told]
        assert response.one("x-frame-options") is None

    @pytest.mark.parametrize(
        "path", ["/jupyter/{}<script>alert(1)</script>", "/jupyter/{}/\"'><svg/onload=x>"]
    )
    def test_204_no_markup(self, wire: Wire, path: str) -> None:
        """Neither a path nor an instance's name comes back from us."""
        _owned(ip="127.0.0.3")(wire)
        response = wire.ask(get(path.format(wire.number), token=wire.token))
        assert 502 == response.status
        assert [] == [mark for mark in (b"<", b">", b"alert") if mark in response.head + response.body]

    def test_203_a_head_is_told_without_a_body(self, wire: Wire) -> None:
        """The answer to a HEAD has the length of the text, and not the text."""
        with wire.client() as client:
            response = client.ask(get("/nope", method="HEAD"))
            assert (404, b"no-store") == (response.status, response.one("cache-control"))
            assert int(response.one("content-length") or 0) > 0
            assert 404 == client.ask(get("/nope")).status


NAVIGATES = {
    "mode": ["Sec-Fetch-Mode: navigate", "Accept: */*"],
    "chromium": [
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
        "Sec-Fetch-Site: none",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Dest: document",
    ],
    "frame": ["Accept: text/html,*/*;q=0.8", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
    "http": ["Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
    "plain": ["accept:Text/HTML"],
    "two": ["Accept: application/json;q=0.5", "Accept: text/html; charset=utf-8;Q=0.9, */*;q=0.1"],
}

FETCHES = {
    "nothing": [],
    "anything": ["Accept: */*"],
    "empty": ["Accept:"],
    "jquery": ["Accept: application/json, text/javascript, */*; q=0.01"],
    "fetch": ["Accept: text/html", "Sec-Fetch-Mode: cors"],
    "image": ["Accept: text/html,image/png", "Sec-Fetch-Mode: no-cors"],
    "two modes": ["Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Mode: cors"],
    "either": ["Accept: text/html, application/json"],
    "rather json": ["Accept: text/html;q=0.5, application/json"],
    "rather anything": ["Accept: text/html;q=0.5, */*"],
    "no html": ["Accept: text/html;q=0"],
    "far behind": ["Accept: " + "image/png," * 1000 + "text/html"],
}


class TestPages:
    """A browser that navigates gets a page for a person; everybody else JSON."""

    @staticmethod
    def _navigate(wire: Wire, failure: Failure) -> Message:
        failure.prepare(wire)
        line, host, rest = failure.request(wire).partition(b"\r\nHost:")
        return wire.ask(line + b"\r\nSec-Fetch-Mode: navigate" + host + rest)

    @pytest.mark.parametrize("name", sorted(FOR_PROGRAMS))
    def test_203_no_page(self, wire: Wire, name: str) -> None:
        """JSON for what is no request, and for WebSockets, which no person sees."""
        response = self._navigate(wire, FAILURES[name])
        assert (FAILURES[name].error, b"application/json") == (
            json.loads(response.body)["error"],
            response.one("content-type"),
        )

    @pytest.mark.parametrize("failure", FOR_PEOPLE.values(), ids=FOR_PEOPLE)
    def test_203_204_a_page(self, wire: Wire, failure: Failure) -> None:
        """It says what happened and what to do, loads nothing, and has nothing of request or instance."""
        response = self._navigate(wire, failure)
        status, _ = TEXTS[failure.error]
        assert status == response.status
        page, request_id = response.body.decode(), (response.one("x-request-id") or b"").decode()
        told = SHIPPED["en"][failure.page or failure.error]
        assert f"Status {status}, request {request_id}" in page
        filled = {" @status@,": f" {status},", "@request-id@": request_id, "@service@": "JupyterLab"}
        expected = told.body.decode()
        for here, text in filled.items():
            expected = expected.replace(here, text)
        assert expected == page
        assert (b"text/html; charset=utf-8", b"nosniff", b"no-store", None) == (
            response.one("content-type"),
            response.one("x-content-type-options"),
            response.one("cache-control"),
            response.one("x-frame-options"),
        )
        assert told.policy.encode() == response.one("content-security-policy")
        sent = response.head.replace(request_id.encode(), b"") + page.replace(request_id, "").encode()
        secrets = (MARK, wire.instance.host, "127.0.0.", str(wire.instance.port), wire.token)
        assert [] == [secret for secret in secrets if secret.encode() in sent]

    @pytest.mark.parametrize("fields", NAVIGATES.values(), ids=NAVIGATES)
    def test_203_who_navigates(self, wire: Wire, fields: list[str]) -> None:
        """Current browsers say so; with others, and on sites without https, `Accept` does."""
        with wire.client() as client:
            for method in ("GET", "HEAD"):
                response = client.ask(get("/nope", *fields, method=method))
                assert (404, b"text/html; charset=utf-8") == (response.status, response.one("content-type"))
                assert (method == "HEAD") is (response.body == b"")

    @pytest.mark.parametrize("fields", FETCHES.values(), ids=FETCHES)
    def test_203_who_does_not(self, wire: Wire, fields: list[str]) -> None:
        """Programs, also those in a page, and whoever wants JSON as much."""
        response = wire.ask(get("/nope", *fields))
        assert (404, b"application/json", None) == (
            response.status,
            response.one("content-type"),
            response.one("content-security-policy"),
        )

    def test_203_too_many_cookies(self, wire: Wire) -> None:
        """A head that is too large, as a browser sends it: in the person's language, cookies last."""
        fields = (*NAVIGATES["chromium"], "Accept-Language: fr", "Cookie: " + "a=1; " * 10_000)
        response = wire.ask(get("/jupyter/1/lab", *fields))
        assert (431, b"fr", b"close") == (
            response.status,
            response.one("content-language"),
            response.one("connection"),
        )
        assert "Votre navigateur en envoie trop" in response.body.decode()
        response = wire.ask(get("/jupyter/1/lab", *FETCHES["fetch"], "Cookie: " + "a=1; " * 10_000))
        assert "head_too_large" == json.loads(response.body)["error"]

    def test_203_a_form(self, wire: Wire) -> None:
        """A browser that navigates by POST says so; without that, a POST is a program's."""
        accept, mode = "Accept: text/html,*/*;q=0.8", "Sec-Fetch-Mode: navigate"
        kinds = [
            wire.ask(get("/nope", "Content-Length: 0", *fields, method="POST")).one("content-type")
            for fields in ([accept], [accept, mode])
        ]
        assert [b"application/json", b"text/html; charset=utf-8"] == kinds

    def test_203_204_no_markup_in_a_page(self, wire: Wire) -> None:
        """Nothing of the address gets into it, and no id of a request that could be markup."""
        target = "/nope<script>alert(1)</script>?\"'><svg/onload=alert(1)>"
        fields = ("Sec-Fetch-Mode: navigate", "X-Request-Id: <b>1</b>")
        response = wire.ask(get(target, *fields))
        assert 404 == response.status
        assert [] == [mark for mark in (b"<b>", b"script", b"svg", b"alert") if mark in response.body]


def _records(wire: Wire, response: Message) -> list[dict[str, object]]:
    """Wait for the record of a request, and give all that bear its id."""
    request_id = (response.one("x-request-id") or b"").decode()

    def found() -> list[dict[str, object]]:
        records = wire.proxy.records("request") + wire.proxy.records("tunnel")
        return [record for record in records if record["request_id"] == request_id]

    wire.proxy.wait(found)
    return found()


class TestRecords:
    """With ACCESS_LOG=all, one line for each request."""

    @each
    def test_207_a_failure(self, wire: Wire, failure: Failure) -> None:
        """Exactly one record, with status and reason, and without a secret."""
        response = _fail(wire, failure)
        (record,) = _records(wire, response)
        assert (response.status, failure.error) == (record["status"], record["reason"])
        assert wire.token not in wire.proxy.log.read_text()

    def test_207_one_that_is_served(self, wire: Wire) -> None:
        """Who, where, how much and how long; neither token nor query are in it."""
        fields = ("Content-Length: 3", "User-Agent: Browser/1")
        response = wire.ask(wire.get("/y?token=hidden-query", *fields, method="POST") + b"abc")
        (record,) = _records(wire, response)
        expected = {
            "status": 200,
            "reason": None,
            "client": "127.0.0.1",
            "method": "POST",
            "path": wire.path("/y"),
            "route": "Jupyter",
            "instance": wire.number,
            "user_agent": "Browser/1",
            "bytes_up": 3,
            "bytes_down": 2,
        }
        assert expected == {name: record[name] for name in expected}
        log = wire.proxy.log.read_text()
        assert [] == [secret for secret in ("hidden-query", wire.token) if secret in log]

    def test_129_207_a_token_cannot_forge_a_line(self, wire: Wire) -> None:
        """Whatever an accepted token's `sub` says stays within the record of its own request, escaped."""
        forged = json.dumps({"event": "request", "request_id": "forged"})
        sub = f"x\r\n{forged}\n\x1b[2J\u2028{forged}"
        payload = base64.urlsafe_b64encode(json.dumps({"sub": sub}).encode()).decode().rstrip("=")
        token = f"e30.{payload}.{wire.number}"
        wire.api.user(token, f"user-{wire.number}")
        (record,) = _records(wire, wire.ask(get(wire.path(), token=token)))
        assert (200, storable(sub)) == (record["status"], record["user"])
        assert [] == [r for r in wire.proxy.records("request") if r["request_id"] == "forged"]
        assert "\x1b" not in wire.proxy.log.read_text()

    def test_207_pipelined_and_kept_alive(self, wire: Wire) -> None:
        """Each request on a connection has its own."""
        with wire.client() as client:
            client.send(wire.get("/1") + get(wire.path("/2")) + wire.get("/3") + get("/nope"))
            responses = [client.response() for _ in range(4)]
        assert [200, 401, 200, 404] == [record["status"] for r in responses for record in _records(wire, r)]

    def test_207_a_websocket(self, wire: Wire) -> None:
        """One record when it has ended, with the bytes each way."""

        def script(connection: Connection) -> None:
            request = connection.request_head()
            connection.send(switching(request) + b"down")
            connection.exactly(6)

        wire.instance.play(script)
        with wire.client() as client:
            response = client.ask(upgrade(wire.path(), token=wire.token))
            assert b"down" == client.exactly(4)
            client.send(b"upward")
            assert client.closed()
        (record,) = _records(wire, response)
        assert ("tunnel", 101, 6, 4) == tuple(
            record[name] for name in ("event", "status", "bytes_up", "bytes_down")
        )

    def test_207_a_client_that_leaves(self, wire: Wire) -> None:
        """A request whose client has gone before the answer has one too, with nginx's 499."""
        path = wire.path("/left")
        wire.instance.play(_silent)
        client = wire.client()
        client.send(wire.get("/left"))
        wire.instance.wait(lambda: wire.instance.requests)
        client.reset()
        wire.proxy.wait(lambda: [r for r in wire.proxy.records("request") if r.get("path") == path])
        (record,) = [r for r in wire.proxy.records("request") if r.get("path") == path]
        assert (499, "client_gone") == (record["status"], record["reason"])

    def test_207_no_request_has_two(self, wire: Wire) -> None:
        """Of all requests of this run so far, whatever they were, none is recorded twice."""
        wire.instance.answer(ok())
        assert 200 == wire.ask(wire.get()).status
        records = wire.proxy.records("request") + wire.proxy.records("tunnel")
        counts = Counter(record["request_id"] for record in records)
        assert [] == [request_id for request_id, count in counts.items() if count > 1]
        assert [] == [record for record in records if not record["status"]]
