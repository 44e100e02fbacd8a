"""The connection of a client: its deadlines, and what a client can make it keep.

The real protocol, rules and reader over a transport in memory; forwarding is looked at in `wire`.
"""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import override

import pytest

from support.client import upgrade
from support.conversation import JUPYTER, Wire
from support.pages import PAGES
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.grant import InstanceNetworks
from visa_jupyter_proxy.worker.access.questions import Questions
from visa_jupyter_proxy.worker.accounting.counts import Counts
from visa_jupyter_proxy.worker.crowds import MOST_AT_ONCE
from visa_jupyter_proxy.worker.downstream import DRAIN_IDLE_S, LINGER_S, MOST_IN_A_TURN, Downstream
from visa_jupyter_proxy.worker.exchange import Exchange
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.sockets.admission import Admission
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.sockets.splice import Splices

_SETTINGS = Settings(working_directory=Path.cwd(), access_log="off").for_worker()
_HEADER_S, _IDLE_S = _SETTINGS.header_timeout_s, _SETTINGS.idle_timeout_s
_NOT_FOUND = b"GET /nope HTTP/1.1\r\nHost: visa\r\n\r\n"


class Connection:
    """One connection to a worker, over a transport in memory."""

    def __init__(self, worker: "Client", wire: Wire) -> None:
        self._worker = worker
        self.wire = wire
        self.downstream = Downstream(worker.proxy)
        wire.set_protocol(self.downstream)
        self.downstream.connection_made(wire)

    def sends(self, data: bytes) -> None:
        """Let bytes arrive, as a transport that is not paused would."""
        assert self.wire.reading
        self.wire.protocol.data_received(data)

    @property
    def answers(self) -> int:
        """How many answers have been written so far."""
        return self.wire.sent.count(b"HTTP/1.1 ")

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.downstream.deadline - self._worker.now


class Client(Connection):
    """A client of a worker that is the only one it has at first; time stands still unless it is moved."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.connections: set[Timed] = set()
        self.hangups = Hangups(loop)
        self.api = VisaApi(_SETTINGS.api_url, ca_file=None, timeout_s=10)
        self.splices = Splices(loop, most=0)
        pool = Pool(
            loop, self.connections, self.hangups, self.splices, connect_timeout_s=5, response_timeout_s=300
        )
        authorization = Authorization(
            Questions(self.api, patience_s=10, now=lambda: self.now),
            InstanceNetworks(None),
            reuse_s=60,
            stale_s=120,
            now=lambda: self.now,
        )
        admission = Admission(100, 0, pause=lambda: None, resume=lambda: None)
        self.proxy = Proxy(
            _SETTINGS,
            [JUPYTER],
            pages=PAGES,
            authorization=authorization,
            pool=pool,
            hangups=self.hangups,
            admission=admission,
            counts=Counts([JUPYTER]),
            tell=lambda _: None,
            told=lambda: None,
        )
        self.now = 1000.0
        self.proxy.now = lambda: self.now
        super().__init__(self, Wire())


_TURNS = 200


def _run(test: Callable[[Client], None], then: Callable[[Client], None] | None = None) -> None:
    """Run `test`, let the loop turn a few times, run `then`."""

    async def run() -> None:
        client = Client()
        try:
            test(client)
            if then is not None:
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                then(client)
        finally:
            await client.api.close()
            client.splices.close()
            client.hangups.close()

    asyncio.run(run())


class TestDeadlines:
    """A head has a total deadline, however its bytes come (case 74)."""

    def test_from_the_first_byte(self) -> None:
        """Later ones do not move it."""

        def test(client: Client) -> None:
            client.now += 3
            client.sends(b"G")
            assert _HEADER_S == client.left
            client.now += 4
            client.sends(b"ET / HT")
            assert _HEADER_S - 4 == client.left

        _run(test)

    def test_between_requests(self) -> None:
        """An idle connection has its own, and empty lines do not move it (78)."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND)
            assert _IDLE_S == client.left
            client.now += 5
            client.sends(b"\r\n")
            assert _IDLE_S - 5 == client.left
            client.sends(b"G")
            assert _HEADER_S == client.left

        _run(test)

    @pytest.mark.parametrize("first", [0, 1, 20, len(_NOT_FOUND)])
    def test_of_a_head_that_begins_behind_another_request(self, first: int) -> None:
        """In the same read as the end of the one in front of it."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND[:first])
            client.now += 1
            client.sends(_NOT_FOUND[first:] + b"GET /slow")
            assert (1, _HEADER_S) == (client.answers, client.left)

        _run(test)

    def test_it_ends_in_an_answer(self) -> None:
        """408 for a head that has begun, silence for an idle connection."""

        def test(client: Client) -> None:
            client.sends(b"GET /slow")
            client.downstream.expired(client.now + _HEADER_S)
            assert client.wire.sent.startswith(b"HTTP/1.1 408 Request Timeout\r\n")

        def idle(client: Client) -> None:
            client.downstream.expired(client.now + _IDLE_S)
            assert (b"", True) == (bytes(client.wire.sent), client.wire.closing)

        _run(test)
        _run(idle)

    def test_what_is_no_request_is_answered_and_taken_in_for_a_while(self) -> None:
        """So that the client can read the answer (RFC 9112 9.6)."""

        def test(client: Client) -> None:
            client.sends(b"\x16\x03\x01")
            assert client.wire.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert (True, False, LINGER_S) == (client.wire.ended, client.wire.closing, client.left)
            client.sends(b"more")
            assert 1 == client.answers
            client.downstream.expired(client.now + LINGER_S)
            assert client.wire.aborted

        _run(test)


class TestDrain:
    """The worker stops: a request that is on its way is answered, and no other one is taken."""

    def test_an_idle_connection_is_closed_a_moment_later(self) -> None:
        """Nothing has come in it."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND)
            client.downstream.drain()
            assert DRAIN_IDLE_S == client.left
            client.now += DRAIN_IDLE_S
            client.downstream.expired(client.now)
            assert (1, True) == (client.answers, client.wire.is_closing())

        _run(test)

    @pytest.mark.parametrize("before", [b"", _NOT_FOUND])
    def test_a_request_that_comes_in_it_is_the_last_one(self, before: bytes) -> None:
        """On a fresh connection, and on one that was used before."""

        def test(client: Client) -> None:
            client.sends(before)
            client.wire.sent.clear()
            client.downstream.drain()
            client.sends(_NOT_FOUND)
            assert (1, True) == (client.answers, b"\r\nConnection: close\r\n" in client.wire.sent)

        _run(test)

    def test_a_head_that_has_begun_keeps_its_time(self) -> None:
        """As a request that is under way."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND[:10])
            client.downstream.drain()
            assert _HEADER_S == client.left
            client.sends(_NOT_FOUND[10:])
            assert (1, True) == (client.answers, b"\r\nConnection: close\r\n" in client.wire.sent)

        _run(test)


class TestCrowds:
    """What many new connections say first in one moment is taken in one after the other."""

    def test_who_is_in_already_does_not_wait(self) -> None:
        """Answered at once, while most of a crowd are not; then these are, in order."""
        served: list[int] = []

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND)  # the first who comes in this turn
            for number in range(90):
                Connection(client, NotedWire(number, served)).sends(_NOT_FOUND)
            client.sends(_NOT_FOUND)
            assert (2, [*range(MOST_AT_ONCE - 1)]) == (client.answers, served)

        def then(_client: Client) -> None:
            assert [*range(90)] == served

        _run(test, then)

    def test_who_waits_has_no_deadline(self) -> None:
        """It has spoken in time. When its turn has come, all is as ever."""
        last: list[Connection] = []

        def test(client: Client) -> None:
            last.append(_last_of_a_crowd(client, _NOT_FOUND[:5]))
            assert (True, math.inf) == (last[0].wire.reading, last[0].left)

        def then(_client: Client) -> None:
            assert _HEADER_S == last[0].left
            last[0].sends(_NOT_FOUND[5:])
            assert 1 == last[0].answers

        _run(test, then)

    def test_what_else_comes_of_one_who_waits_is_kept(self) -> None:
        """Once, and then it is not read until it has its turn: it cannot fill our memory."""
        last: list[Connection] = []

        def test(client: Client) -> None:
            last.append(_last_of_a_crowd(client, _NOT_FOUND[:5]))
            last[0].sends(_NOT_FOUND[5:] + _NOT_FOUND)
            assert (0, False) == (last[0].answers, last[0].wire.reading)

        def then(_client: Client) -> None:
            assert (2, True) == (last[0].answers, last[0].wire.reading)

        _run(test, then)

    def test_who_sends_fin_while_he_waits_is_answered(self) -> None:
        """His request is complete, and he may still read: answered and closed, as ever."""
        last: list[Connection] = []

        def test(client: Client) -> None:
            last.append(_last_of_a_crowd(client, _NOT_FOUND))
            assert last[0].wire.protocol.eof_received()
            assert (0, False) == (last[0].answers, last[0].wire.closing)

        def then(_client: Client) -> None:
            assert (1, True) == (last[0].answers, last[0].wire.closing)

        _run(test, then)

    def test_who_has_gone_meanwhile_is_left_out(self) -> None:
        """Nothing is done for it, and who is behind it has its turn."""
        waiting: list[Connection] = []

        def test(client: Client) -> None:
            waiting.extend(_last_of_a_crowd(client, _NOT_FOUND) for _ in range(2))
            waiting[0].wire.protocol.connection_lost(None)

        def then(_client: Client) -> None:
            assert [0, 1] == [one.answers for one in waiting]

        _run(test, then)

    def test_who_waits_when_the_worker_stops_is_answered(self) -> None:
        """Its request has come: it is the last one on this connection."""
        last: list[Connection] = []

        def test(client: Client) -> None:
            last.append(_last_of_a_crowd(client, _NOT_FOUND))
            last[0].downstream.drain()
            assert (0, math.inf) == (last[0].answers, last[0].left)

        def then(_client: Client) -> None:
            assert (1, True) == (last[0].answers, b"\r\nConnection: close\r\n" in last[0].wire.sent)

        _run(test, then)


class NotedWire(Wire):
    """Notes when something is written."""

    def __init__(self, number: int, written: list[int]) -> None:
        super().__init__()
        self._number = number
        self._written = written

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self._written.append(self._number)


def _last_of_a_crowd(client: Client, data: bytes) -> Connection:
    """Have so many new connections speak in one moment that the last one has to wait."""
    for _ in range(MOST_AT_ONCE + 1):
        connection = Connection(client, Wire())
        connection.sends(data)
    return connection


class TestClientsThatDoNotRead:
    """Answers of our own are bounded like all others (rule 2)."""

    def test_their_requests_wait(self) -> None:
        """Whoever sends requests without end and reads no answer, is not read either."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND)
            client.downstream.pause_writing()
            client.sends(_NOT_FOUND * 1000)
            # One more was answered before there was anything to wait.
            assert (2, False) == (client.answers, client.wire.reading)
            client.downstream.resume_writing()

        def then(client: Client) -> None:
            assert (1001, True) == (client.answers, client.wire.reading)

        _run(test, then)

    def test_80_others_have_their_turn(self) -> None:
        """Of many requests that need nobody else, so many are answered at once, and the rest soon."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND * (MOST_IN_A_TURN + 50))
            assert (MOST_IN_A_TURN + 1, False) == (client.answers, client.wire.reading)

        def then(client: Client) -> None:
            assert (MOST_IN_A_TURN + 50, True) == (client.answers, client.wire.reading)

        _run(test, then)

    def test_80_others_have_their_turn_between_very_many_chunks(self) -> None:
        """One read may have forty thousand; the end of a client who closes is behind all of them."""
        head = b"PUT /jupyter/7/x HTTP/1.1\r\nHost: visa\r\nTransfer-Encoding: chunked\r\n"
        kept: list[Exchange] = []

        def test(client: Client) -> None:
            client.sends(head + b"Authorization: Bearer T\r\n\r\n" + b"1\r\nx\r\n" * 2500 + b"0\r\n\r\n")
            exchange = client.downstream.exchange
            assert exchange is not None
            client.downstream.eof_received()
            kept.append(exchange)
            assert (1000, False) == (exchange.bytes_up, exchange.request_is_complete)
            assert not client.wire.sent

        def then(client: Client) -> None:
            assert (2500, True) == (kept[0].bytes_up, kept[0].request_is_complete)
            assert b"HTTP/1.1 400" not in client.wire.sent

        _run(test, then)

    def test_it_may_fill_in_the_middle_of_a_read(self) -> None:
        """The rest of that read waits."""

        class Filling(Wire):
            """Says that it is full after ten answers."""

            def write(self, data: bytes | bytearray | memoryview) -> None:
                super().write(data)
                if self.sent.count(b"HTTP/1.1 ") == 10:
                    client_of[0].downstream.pause_writing()

        client_of: list[Client] = []

        def test(client: Client) -> None:
            client_of.append(client)
            client.wire = Filling()
            client.wire.set_protocol(client.downstream)
            client.downstream.connection_made(client.wire)
            client.sends(_NOT_FOUND * 100)
            assert (10, False) == (client.answers, client.wire.reading)
            client.downstream.resume_writing()

        def then(client: Client) -> None:
            assert (100, True) == (client.answers, client.wire.reading)

        _run(test, then)

    def test_a_client_that_reads_again_may_go_on(self) -> None:
        """Also when nothing was waiting."""

        def test(client: Client) -> None:
            client.sends(_NOT_FOUND)
            client.downstream.pause_writing()
            client.downstream.resume_writing()
            client.sends(_NOT_FOUND)
            assert 2 == client.answers

        _run(test)


def test_what_was_pipelined_by_a_client_that_has_gone_is_dropped() -> None:
    """Nobody waits for the answer, and nobody would end it."""

    def test(client: Client) -> None:
        client.sends(_NOT_FOUND)
        client.downstream.pause_writing()
        client.sends(_NOT_FOUND * 3)
        client.downstream.resume_writing()
        client.downstream.connection_lost(None)

    def then(client: Client) -> None:
        assert (2, set()) == (client.answers, client.connections)
        assert client.downstream._exchange is None

    _run(test, then)


@pytest.mark.parametrize("lost_before", [False, True], ids=["closing", "lost"])
def test_a_client_that_goes_in_the_handshake_leaves_once(lost_before: bool) -> None:
    """The instance's 101 may come in the turn in which the client is lost, before the loop says so."""

    def test(client: Client) -> None:
        client.sends(upgrade("/jupyter/12/ws", token="token-of-anna"))
        exchange = client.downstream._exchange
        assert exchange is not None
        assert 1 == client.proxy.admission.count
        client.wire.abort()
        if lost_before:
            client.downstream.connection_lost(None)
        instance = Wire()
        client.downstream.open_tunnel(exchange, instance, b"")
        if not lost_before:
            client.downstream.connection_lost(None)
        assert (0, True) == (client.proxy.admission.count, instance.aborted)
        assert set() == client.connections

    _run(test)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 90_000, _NOT_FOUND],
    ids=["nothing", "half a head", "a head without end", "what is refused"],
)
def test_what_a_client_has_sent_goes_with_it(sent: bytes) -> None:
    """At once, without the garbage collector, which comes seldom: a thousand such heads are 96 MiB."""

    def test(client: Client) -> None:
        client.sends(sent)
        client.wire.protocol.connection_lost(None)
        client.wire.set_protocol(asyncio.Protocol())  # as a loop forgets it
        left = weakref.ref(client.downstream)
        del client.downstream
        assert left() is None

    gc.disable()
    try:
        _run(test)
    finally:
        gc.enable()
