"""What the VISA API is asked, how long its answers count, and what becomes of those that are none."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.client import Message, RawClient, get, upgrade
from support.instance import Connection, Instance, echo, ok
from support.proxy import RunningProxy, running_proxy
from support.visa_api import Answer, Hold, VisaApiServer
from wire.conftest import Wire, production

_numbers: Final = itertools.count(500_000)

type Make = Callable[..., bytes]

both = pytest.mark.parametrize("make", [get, upgrade], ids=["http", "websocket"])


class TestQuestions:
    """How often the API is asked."""

    def test_131_132_a_hundred_first_requests(self, wire: Wire) -> None:
        """One question for all, HTTP and WebSocket; the first asker leaves, the others get their answers."""
        wire.instance.play(echo)
        hold = Hold()
        wire.api.script("instance", Answer(hold=hold))
        before = len(wire.api.asked("instance"))
        first = wire.client()
        first.send(wire.get())
        wire.api.wait(lambda: len(wire.api.asked("instance")) > before)
        clients = [wire.client() for _ in range(99)]
        for number, client in enumerate(clients):
            client.send(upgrade(wire.path(), token=wire.token) if number % 3 == 0 else wire.get())
        first.reset()
        hold.release()
        expected = [101 if number % 3 == 0 else 200 for number in range(99)]
        assert expected == [client.response().status for client in clients]
        for client in clients:
            client.sock.close()
        assert before + 1 == len(wire.api.asked("instance"))

    def test_132_the_answer_is_kept_though_all_have_left(self, wire: Wire) -> None:
        """A question completes without anybody waiting, and the next request finds its answer."""
        hold = Hold()
        wire.api.script("instance", Answer(hold=hold))
        before = len(wire.api.asked("instance"))
        client = wire.client()
        client.send(wire.get("/gone"))
        wire.api.wait(lambda: len(wire.api.asked("instance")) > before)
        client.reset()
        path = wire.path("/gone")
        wire.proxy.wait(lambda: [r for r in wire.proxy.records("request") if r.get("path") == path])
        hold.release()
        wire.api.wait(lambda: wire.api.seen(wire.number) == 1)
        assert 200 == wire.ask(wire.get()).status
        assert before + 1 == len(wire.api.asked("instance"))

    def test_131_a_grant_is_reused(self, wire: Wire) -> None:
        """One question for many requests of one token and instance."""
        before = len(wire.api.asked("instance"))
        with wire.client() as client:
            assert {200} == {client.ask(wire.get()).status for _ in range(20)}
        assert before + 1 == len(wire.api.asked("instance"))

    def test_138_one_slow_question_delays_nobody_else(self, wire: Wire) -> None:
        """While the API keeps one user waiting, others are served: one with a grant, and one without."""
        assert wire.ask(wire.get()).status == 200
        slow, other = f"slow-{wire.number}", f"other-{wire.number}"
        wire.api.user(slow, f"user-{wire.number}")
        wire.api.user(other, f"user-{wire.number}")
        hold = Hold()
        wire.api.script("instance", Answer(hold=hold))
        before = len(wire.api.asked("instance"))
        with wire.client() as waiting:
            waiting.send(get(wire.path(), token=slow))
            wire.api.wait(lambda: len(wire.api.asked("instance")) > before)
            assert [200, 200] == [wire.ask(get(wire.path(), token=t)).status for t in (wire.token, other)]
            waiting.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.sock.recv(1)
            waiting.sock.settimeout(20)
            hold.release()
            assert 200 == waiting.response().status

    def test_246_two_hundred_forged_tokens(self, wire: Wire) -> None:
        """Four questions at a time for a client, sixteen for strangers; a grant is as good as ever."""
        assert wire.ask(wire.get()).status == 200
        hold = Hold()
        wire.api.always("instance", Answer(hold=hold))
        before = len(wire.api.asked("instance"))
        clients = [wire.client() for _ in range(260)]
        try:
            for number, client in enumerate(clients[:200]):
                client.send(get(wire.path(), token=f"forged-{wire.number}-{number}"))
            wire.api.wait(lambda: len(wire.api.asked("instance")) >= before + 4)
            assert [200] * 20 == [wire.ask(wire.get()).status for _ in range(20)]
            assert before + 4 == len(wire.api.asked("instance"))
            for number, client in enumerate(clients[200:]):
                client_of = (f"203.0.113.{number % 3 + 1}", f"2001:db8:0:{number % 3}::{number + 1}")
                forwarded = f"X-Forwarded-For: {client_of[number % 2]}"
                client.send(get(wire.path(), forwarded, token=f"forged-{wire.number}-x{number}"))
            wire.api.wait(lambda: len(wire.api.asked("instance")) >= before + 16)
            assert [200] * 20 == [wire.ask(wire.get()).status for _ in range(20)]
            assert before + 16 == len(wire.api.asked("instance"))
        finally:
            wire.api.always("instance", None)
            hold.release()
        assert {401} == {client.response().status for client in clients}
        for client in clients:
            client.sock.close()
        assert before + 260 == len(wire.api.asked("instance"))


class TestRefusals:
    """A refusal is remembered for two seconds, for that token and that instance alone."""

    def test_134_granted_soon_after_a_refusal(self, wire: Wire) -> None:
        """A burst of refused requests is one question; who has become the owner is let in by itself."""
        wire.api.instance(wire.number, owner="somebody-else", ip=wire.instance.host)
        before = len(wire.api.asked("instance"))
        began = time.monotonic()
        assert {404} == {wire.ask(wire.get()).status for _ in range(5)}
        if time.monotonic() - began < 1.5:  # unless this machine has taken as long as it is remembered
            assert before + 1 == len(wire.api.asked("instance"))
        wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=wire.instance.host)
        wire.instance.wait(lambda: wire.ask(wire.get()).status == 200)

    def test_134_a_refusal_of_another_token(self, wire: Wire) -> None:
        """A 401 of one token does not touch the grant of another, nor the other way round."""
        tokens = ("bad", wire.token, "bad", wire.token)
        answers = [wire.ask(get(wire.path(), token=token)).status for token in tokens]
        assert [401, 200, 401, 200] == answers

    def test_134_a_refusal_of_another_instance(self, wire: Wire) -> None:
        """A 404 about one instance does not touch the grant for another."""
        other = next(_numbers)
        wire.api.instance(other, owner="somebody-else", ip=wire.instance.host)
        answers = [
            wire.ask(get(path, token=wire.token)).status
            for path in (f"/jupyter/{other}/x", wire.path(), f"/jupyter/{other}/x", wire.path())
        ]
        assert [404, 200, 404, 200] == answers


class TestAddress:
    """An instance may move."""

    def test_135_the_instance_has_moved(self, wire: Wire) -> None:
        """A failed connect ends the grant: the next request goes to the new address, and none to the old."""
        assert wire.ask(wire.get("/old", "Connection: close")).status == 200
        wire.instance.refuse()
        wire.instance.close()
        with Instance(wire.instance.port) as moved:
            wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=moved.host)
            assert wire.ask(wire.get("/lost", method="POST")).status == 502
            assert wire.ask(wire.get("/new")).status == 200
            wire.instance.listen()
            assert wire.ask(wire.get("/new")).status == 200
            assert [b"/new"] * 2 == [request.target[-4:] for request in moved.requests]
        assert [b"/old"] == [request.target[-4:] for request in wire.instance.requests]


@pytest.fixture(scope="module")
def brief(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy whose grants live for one second."""
    directory = tmp_path_factory.mktemp("brief")
    routes = production(instance_port)
    with running_proxy(directory, api_url=api.url, routes=routes, CACHE_REFRESH_TIME_S="1") as running:
        yield running


_CLOCK_S: Final = 0.01
"""The loop's clock counts milliseconds."""


class TestLifetime:
    """A grant lives for CACHE_REFRESH_TIME_S, one second here, and is not prolonged by being used."""

    @both
    def test_133_revoked(self, wire: Wire, brief: RunningProxy, make: Make) -> None:
        """Once the API answers 404, nobody gets in whose request came a lifetime after the last grant."""
        wire.instance.play(echo)
        granted = _ask(brief, make(wire.path(), token=wire.token)).status
        at = time.monotonic()
        wire.api.instance(wire.number, owner="somebody-else", ip=wire.instance.host)
        answers = [(at, granted)]
        while answers[-1][1] != 404:
            sent = time.monotonic()
            answers.append((sent, _ask(brief, make(wire.path(), token=wire.token)).status))
            assert sent < at + 20
        assert max(sent for sent, status in answers if status != 404) <= at + 1 + _CLOCK_S
        assert {404} == {_ask(brief, m(wire.path(), token=wire.token)).status for m in (get, upgrade)}

    def test_141_http_traffic_asks_once_for_each_lifetime(self, wire: Wire, brief: RunningProxy) -> None:
        """Not more often, however much traffic there is, and again each time: VISA's clock moves."""
        began = time.monotonic()
        with RawClient(brief.port) as client:
            while wire.api.seen(wire.number) < 3:
                assert client.ask(wire.get()).status == 200
                assert time.monotonic() < began + 20
        assert time.monotonic() - began >= 2 - _CLOCK_S

    def test_141_a_websocket_alone_asks_nothing(self, wire: Wire, brief: RunningProxy) -> None:
        """What passes through an open WebSocket moves no clock of VISA; the page's plain requests do."""
        wire.instance.play(echo)
        other = next(_numbers)
        wire.api.instance(other, owner=f"user-{wire.number}", ip=wire.instance.host)
        with RawClient(brief.port) as socket, RawClient(brief.port) as client:
            assert socket.ask(upgrade(wire.path(), token=wire.token)).status == 101
            while wire.api.seen(other) < 3:  # two lifetimes and more
                assert client.ask(get(f"/jupyter/{other}/x", token=wire.token)).status == 200
                socket.send(b"ping")
                assert b"ping" == socket.exactly(4)
        assert 1 == wire.api.seen(wire.number)


def _ask(proxy: RunningProxy, data: bytes) -> Message:
    with RawClient(proxy.port) as client:
        return client.ask(data)


class TestNonsense:
    """Answers of the API that are none: nobody gets through, and nothing is remembered."""

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            (Answer(500), 502),
            (Answer(503), 502),
            (Answer(400), 502),
            (Answer(204), 502),
            (Answer(raw=b"garbage"), 502),
            (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), 502),
            (Answer(200, body=b""), 502),
            (Answer(200, body=b"<html>"), 502),
            (Answer(200, body=b"null"), 502),
            (Answer(200, body=b'{"data":null}'), 502),
            (Answer(200, body=b'{"data":{}}'), 502),
            (Answer(200, body=b'{"data":[]}'), 502),
            (Answer(200, body=b"[" * 100_000), 502),
        ],
        ids=repr,
    )
    def test_136_no_answer(self, wire: Wire, answer: Answer, status: int) -> None:
        """502 for what is invalid; afterwards all is well by itself."""
        wire.api.script("instance", answer)
        assert status == wire.ask(wire.get()).status
        assert 0 == wire.instance.connections
        assert 200 == wire.ask(wire.get()).status

    @pytest.mark.parametrize("given", [999_999, "{n}", None, 1.5, True], ids=repr)
    def test_102_another_instance_than_asked(self, wire: Wire, given: object) -> None:
        """502 whatever else the answer says, and nothing is cached."""
        given = given.format(n=wire.number) if isinstance(given, str) else given
        data = {"id": given, "ipAddress": wire.instance.host, "state": "ACTIVE", "computeId": "c"}
        wire.api.script("instance", Answer(200, body=json.dumps({"data": data}).encode()))
        response = wire.ask(wire.get())
        assert (502, True) == (response.status, b"visa_invalid" in response.body)
        assert 0 == wire.instance.connections
        assert 200 == wire.ask(wire.get()).status

    def test_136_forbidden_is_not_yours(self, wire: Wire) -> None:
        """The API's 403 says the same as its 404: not yours."""
        wire.api.script("instance", Answer(403))
        assert 404 == wire.ask(wire.get()).status
        assert 0 == wire.instance.connections

    def test_136_an_answer_beyond_all_bounds(self, wire: Wire) -> None:
        """A valid answer with more than 1 MiB around it is none."""
        data = {"id": wire.number, "ipAddress": wire.instance.host, "state": "ACTIVE"}
        body = json.dumps({"data": data, "_metadata": "x" * 2**20}).encode()
        wire.api.script("instance", Answer(200, body=body))
        assert 502 == wire.ask(wire.get()).status
        assert 0 == wire.instance.connections

    def test_136_an_answer_that_is_no_text(self, wire: Wire) -> None:
        """JSON whose strings are no UTF-8 is none."""
        body = b'{"data":{"id":%d,"ipAddress":"\xff"}}' % wire.number
        wire.api.script("instance", Answer(200, body=body))
        assert 502 == wire.ask(wire.get()).status

    def test_136_nobody_there(self, wire: Wire) -> None:
        """503 with Retry-After while connections are refused."""
        wire.api.down()
        try:
            response = wire.ask(wire.get())
            assert (503, b"5") == (response.status, response.one("retry-after"))
        finally:
            wire.api.up()
        assert 200 == wire.ask(wire.get()).status


@dataclass
class Elsewhere:
    """A proxy whose API is scripted byte by byte, and an environment that would lead it astray."""

    proxy: RunningProxy
    api: Instance
    instance: Instance
    astray: Instance

    def ask(self, number: int, token: str, *fields: str) -> Message:
        """Send a request."""
        return _ask(self.proxy, get(f"/jupyter/{number}/x", *fields, token=token))

    def granted(self, number: int) -> bytes:
        """Write the answer that lets somebody in."""
        data = {"id": number, "ipAddress": self.instance.host, "state": "ACTIVE"}
        return ok(json.dumps({"data": data}).encode(), "Connection: close")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, instance_port: int) -> Iterator[Elsewhere]:
    """Run a proxy that waits one second for the API, in an environment full of other people's proxies."""
    directory: Path = tmp_path_factory.mktemp("elsewhere")
    with (
        Instance(instance_port) as api,
        Instance(instance_port) as instance,
        Instance(instance_port) as astray,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, f"http://{astray.host}:{astray.port}")
            patch.setenv(name.lower(), f"http://{astray.host}:{astray.port}")
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        netrc = directory / ".netrc"
        netrc.write_text(
            f"machine {api.host} login netrc password netrc\ndefault login netrc password netrc\n"
        )
        netrc.chmod(0o600)
        patch.setenv("NETRC", str(netrc))
        patch.setenv("HOME", str(directory))
        url = f"http://{api.host}:{api.port}/api"
        settings: dict[str, Any] = {"API_TIMEOUT_S": "1"}
        with running_proxy(directory, api_url=url, routes=production(instance_port), **settings) as running:
            yield Elsewhere(running, api, instance, astray)


class TestElsewhere:
    """Where tokens go, and where they do not."""

    def test_140_the_environment_leads_nowhere(self, elsewhere: Elsewhere) -> None:
        """HTTP_PROXY and .netrc are not read: the API gets the token itself, the instance its request."""
        number = next(_numbers)
        elsewhere.api.answer(elsewhere.granted(number))
        assert 200 == elsewhere.ask(number, "T140").status
        (asked,) = elsewhere.api.requests[-1:]
        assert (f"/api/jupyter/instances/{number}".encode(), [b"Bearer T140"]) == (
            asked.target,
            asked.all("authorization"),
        )
        assert f"/jupyter/{number}/x".encode() == elsewhere.instance.requests[-1].target
        assert 0 == elsewhere.astray.connections

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_136_a_redirect_is_not_followed(self, elsewhere: Elsewhere, status: int) -> None:
        """502, and no token to wherever it points."""
        astray = f"http://{elsewhere.astray.host}:{elsewhere.astray.port}/evil"
        fields = f"Location: {astray}\r\nContent-Length: 0\r\nConnection: close"
        elsewhere.api.answer(f"HTTP/1.1 {status} Moved\r\n{fields}\r\n\r\n".encode())
        before = elsewhere.instance.connections
        assert 502 == elsewhere.ask(next(_numbers), f"T{status}").status
        assert (before, 0) == (elsewhere.instance.connections, elsewhere.astray.connections)

    @pytest.mark.parametrize(
        "said",
        [b"", b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"data'],
        ids=repr,
    )
    def test_136_silence(self, elsewhere: Elsewhere, said: bytes) -> None:
        """504 after API_TIMEOUT_S, wherever in its answer the API falls silent."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(said)
            connection.rest()

        elsewhere.api.play(script)
        before = elsewhere.instance.connections
        assert 504 == elsewhere.ask(next(_numbers), "T136").status
        assert before == elsewhere.instance.connections

    def test_136_a_gigabyte(self, elsewhere: Elsewhere) -> None:
        """The API is hung up on long before its end: 502."""
        sent: list[int] = []

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
            count = 0
            try:
                while count < 2**30:
                    connection.send(b"[" * 65536)
                    count += 65536
            finally:
                sent.append(count)

        elsewhere.api.play(script)
        assert 502 == elsewhere.ask(next(_numbers), "T136").status
        elsewhere.api.wait(lambda: sent)
        assert sent[0] < 2**26

    def test_246_who_waits_too_long(self, elsewhere: Elsewhere) -> None:
        """A question that gets no turn within API_TIMEOUT_S is 503 with Retry-After; those with one 504."""
        number = next(_numbers)
        elsewhere.api.answer(elsewhere.granted(number))
        assert 200 == elsewhere.ask(number, "T246").status

        def silent(connection: Connection) -> None:
            connection.request()
            connection.rest()

        elsewhere.api.play(silent)
        clients = [RawClient(elsewhere.proxy.port) for _ in range(40)]
        for index, client in enumerate(clients):
            client.send(get(f"/jupyter/{number}/x", token=f"forged{index}"))
        assert 200 == elsewhere.ask(number, "T246").status
        responses = [client.response() for client in clients]
        for client in clients:
            client.sock.close()
        busy = [response for response in responses if response.status == 503]
        assert len(busy) + len([r for r in responses if r.status == 504]) == len(responses)
        assert {(b"2", True)} == {(r.one("retry-after"), b"visa_busy" in r.body) for r in busy}
