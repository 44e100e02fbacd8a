"""Two connections tied together: what passes, and what is known of it (real sockets, both ends here)."""

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable
from typing import Final, cast, override

import pytest
import uvloop

from visa_jupyter_proxy.worker.crowds import Crowd
from visa_jupyter_proxy.worker.farewell import FAREWELL_S
from visa_jupyter_proxy.worker.http.websocket import close_frame
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed, reset
from visa_jupyter_proxy.worker.tunnel import LINGER_S, Origin, Tunnel

_PATIENCE_S: Final = 20.0

TEXT: Final = b"\x81\x05hello"
FRAGMENTS: Final = b"\x01\x03hel" + b"\x89\x00" + b"\x80\x02lo"
PING: Final = b"\x89\x00"
CLOSE: Final = b"\x88\x02\x03\xe8"
MASKED_TEXT: Final = b"\x81\x85" + b"abcd" + bytes(5)
MASKED_PING: Final = b"\x89\x80" + b"abcd"
MASKED_CLOSE: Final = b"\x88\x82" + b"abcd" + b"xx"
FAREWELL: Final = close_frame(1012, "service restart")
MASKED_PONG: Final = b"\x8a\x81" + b"abcd" + b"x"


def origin(*, notebook: int | None = None) -> Origin:
    """Make what a tunnel keeps of its exchange."""
    return Origin(
        peer="192.0.2.1",
        client="192.0.2.7",
        request_id=b"id-1",
        path=b"/jupyter/7/ws",
        route="Jupyter",
        instance_id=7,
        user="anna",
        user_agent=b"Browser/1",
        began=1.0,
        notebook=notebook,
    )


class Worker:
    """The worker that a tunnel is in, with a clock that stands."""

    def __init__(self, *, idle_s: float = 0) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections: set[Timed] = set()
        self.hangups = Hangups(self.loop)
        self.crowd = Crowd(self.loop.call_soon)
        self.time = 1.0
        self.tunnel_idle_s = idle_s
        self.turns = 0
        """How often others have had theirs."""
        self.ended: list[Tunnel] = []

    def now(self) -> float:
        """Give the time."""
        return self.time

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn of the loop."""
        self.turns += 1
        self.loop.call_soon(callback)

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Take note."""
        self.ended.append(tunnel)


class Ends:
    """A tunnel, its worker and its two far ends."""

    def __init__(self, worker: Worker, tunnel: Tunnel, browser: "End", instance: "End") -> None:
        self.worker, self.tunnel, self.browser, self.instance = worker, tunnel, browser, instance

    async def passes(self, giver: "End", data: bytes) -> None:
        """Send, and wait until all of it has come out at the other end as it was."""
        taker = self.instance if giver is self.browser else self.browser
        giver.writer.write(data)
        assert data == await asyncio.wait_for(taker.reader.readexactly(len(data)), _PATIENCE_S)


class End:
    """One far end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer


def talk(
    conversation: Callable[[Ends], Awaitable[None]],
    *,
    notebook: int | None = None,
    idle_s: float = 0,
    early: tuple[bytes, bytes] = (b"", b""),
) -> None:
    """Hold a conversation through a tunnel; afterwards both far ends are closed, and the tunnel is over."""

    async def main() -> None:
        worker = Worker(idle_s=idle_s)
        (down, browser), (up, instance) = await _pair(), await _pair()
        tunnel = Tunnel(down, up, worker, origin(notebook=notebook))
        tunnel.start(*early)
        assert {tunnel} == worker.connections
        try:
            await conversation(Ends(worker, tunnel, browser, instance))
        finally:
            for end in (browser, instance):
                end.writer.close()
            await _until(lambda: worker.ended)
            assert ([tunnel], set()) == (worker.ended, worker.connections)
            worker.hangups.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _pair() -> tuple[asyncio.Transport, End]:
    """Connect: the transport is the proxy's, the end somebody else's."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[End] = loop.create_future()

    def far_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(End(reader, writer))

    async with await asyncio.start_server(far_end, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        end = await accepted
    return transport, end


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():  # noqa: ASYNC110 -- nobody tells when it holds
            await asyncio.sleep(0.001)


def interactions(tunnel: Tunnel) -> tuple[float | None, float | None]:
    """Give when there was the first, and the last."""
    return tunnel.first_interacted_at, tunnel.interacted_at


class TestKernelChannels:
    """Followed both ways: what the user does is told from what only keeps the connection alive."""

    def test_messages_each_way_are_counted(self) -> None:
        """A message in fragments is one, and pings are none."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.browser, MASKED_TEXT + MASKED_PING + MASKED_TEXT)
            await ends.passes(ends.instance, TEXT + FRAGMENTS + PING + TEXT)
            tunnel = ends.tunnel
            assert (2, 3) == (tunnel.messages_up, tunnel.messages_down)
            assert (2 * len(MASKED_TEXT) + len(MASKED_PING), 27) == (tunnel.down.received, tunnel.up.received)

        talk(conversation, notebook=1)

    def test_a_data_message_from_the_browser_is_interaction(self) -> None:
        """At the time when it came; pings, pongs and the kernel's output change nothing."""

        async def conversation(ends: Ends) -> None:
            tunnel = ends.tunnel
            await ends.passes(ends.browser, MASKED_PING + MASKED_PONG)
            await ends.passes(ends.instance, TEXT)
            assert tunnel.interacted_at is None
            ends.worker.time = 5.0
            await ends.passes(ends.browser, MASKED_TEXT)
            ends.worker.time = 9.0
            await ends.passes(ends.browser, MASKED_PING)
            await ends.passes(ends.instance, FRAGMENTS)
            assert (5.0, 5.0) == interactions(tunnel)
            ends.worker.time = 11.0
            await ends.passes(ends.browser, MASKED_TEXT)
            assert (5.0, 11.0) == interactions(tunnel)

        talk(conversation, notebook=1)

    def test_what_came_early_counts(self) -> None:
        """The first message may come with the request, or right behind the 101."""

        async def conversation(ends: Ends) -> None:
            assert MASKED_TEXT == await ends.instance.reader.readexactly(len(MASKED_TEXT))
            assert TEXT == await ends.browser.reader.readexactly(len(TEXT))
            tunnel = ends.tunnel
            assert (1, 1, 1.0) == (tunnel.messages_up, tunnel.messages_down, tunnel.interacted_at)

        talk(conversation, notebook=1, early=(MASKED_TEXT, TEXT))

    def test_what_is_no_websocket_passes_all_the_same(self) -> None:
        """Nothing is counted from there on, and nothing changed."""

        async def conversation(ends: Ends) -> None:
            for giver in (ends.browser, ends.instance):
                await ends.passes(giver, b"SSH-2.0-OpenSSH_9.2\r\n" + TEXT + MASKED_TEXT)
                await ends.passes(giver, TEXT + MASKED_TEXT)
            tunnel = ends.tunnel
            assert (0, 0, None) == (tunnel.messages_up, tunnel.messages_down, tunnel.interacted_at)

        talk(conversation, notebook=1)


def test_of_other_tunnels_only_the_instance_is_followed() -> None:
    """A terminal's browser may send what it likes."""

    async def conversation(ends: Ends) -> None:
        await ends.passes(ends.browser, MASKED_TEXT + b"SSH")
        await ends.passes(ends.instance, TEXT)
        tunnel = ends.tunnel
        assert (None, 1, None) == (tunnel.messages_up, tunnel.messages_down, tunnel.interacted_at)

    talk(conversation)


class TestBoundaries:
    """Where a frame of ours could stand between those of the instance."""

    def test_between_frames(self) -> None:
        """Before the first, and behind each complete one."""

        async def conversation(ends: Ends) -> None:
            seen = [ends.tunnel.up.at_boundary]
            for piece in (TEXT, PING + TEXT[:1], TEXT[1:4], TEXT[4:], FRAGMENTS[:5], FRAGMENTS[5:]):
                await ends.passes(ends.instance, piece)
                seen.append(ends.tunnel.up.at_boundary)
            assert [True, True, False, False, True, True, True] == seen

        talk(conversation)

    def test_the_browser_has_no_say_in_it(self) -> None:
        """Its frames go the other way."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.browser, MASKED_TEXT[:3])
            assert ends.tunnel.up.at_boundary

        talk(conversation, notebook=1)

    @pytest.mark.parametrize("last", [CLOSE, b"no frame at all"])
    def test_never_again(self, last: bytes) -> None:
        """Behind a close frame nothing may follow (RFC 6455 5.5.1), and nobody knows what is no frame."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, TEXT + last)
            assert not ends.tunnel.up.at_boundary

        talk(conversation)


class TestSmallestFrames:
    """A quarter of a mebibyte may be a hundred thousand frames: others do not wait for their counting."""

    @pytest.mark.parametrize("notebook", [None, 1])
    def test_all_pass_and_all_are_counted(self, notebook: int | None) -> None:
        """In turns; at a boundary it is when that is done."""
        count = 200_000

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, (PING + b"\x82\x00") * count)
            await ends.passes(ends.instance, TEXT)
            await _until(lambda: ends.tunnel.up.at_boundary)
            assert count + 1 == ends.tunnel.messages_down
            assert ends.worker.turns >= count / 1000
            await ends.passes(ends.browser, MASKED_TEXT)

        talk(conversation, notebook=notebook)

    def test_there_is_no_boundary_before_they_are_counted(self) -> None:
        """The follower is behind what has passed."""

        async def conversation(ends: Ends) -> None:
            tunnel = ends.tunnel
            tunnel.up.data_received(PING * 1500 + TEXT[:3])
            assert not tunnel.up.at_boundary
            await _until(lambda: ends.worker.turns)
            await ends.browser.reader.readexactly(3003)
            await ends.passes(ends.instance, TEXT[3:])
            assert (True, 1) == (tunnel.up.at_boundary, tunnel.messages_down)

        talk(conversation)

    def test_a_side_that_is_lost_is_not_counted_on(self) -> None:
        """There is nobody to read on from."""

        async def conversation(ends: Ends) -> None:
            ends.tunnel.up.data_received(PING * 1500)
            ends.tunnel.up.transport.abort()
            await _until(lambda: ends.tunnel.up.lost)

        talk(conversation)


def say_farewell(ends: Ends) -> None:
    """End as a drain does."""
    ends.tunnel.end(1012, "service restart", ends.worker.time)


async def gets(end: "End", data: bytes) -> None:
    """Assert that this comes next."""
    assert data == await asyncio.wait_for(end.reader.readexactly(len(data)), _PATIENCE_S)


async def gets_at_last(end: "End", data: bytes) -> None:
    """Assert that this comes, then the end, and no reset."""
    assert data == await asyncio.wait_for(end.reader.read(-1), _PATIENCE_S)


class TestFarewell:
    """A close frame of ours: between two of the instance's, behind all that was queued, before the end."""

    @pytest.mark.parametrize("notebook", [None, 1])
    def test_an_idle_tunnel(self, notebook: int | None) -> None:
        """The browser's answer goes to the instance, which closes: nobody has waited for a deadline."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, TEXT)
            say_farewell(ends)
            await gets(ends.browser, FAREWELL)
            await ends.passes(ends.browser, MASKED_TEXT + MASKED_CLOSE)
            ends.instance.writer.write(CLOSE)
            ends.instance.writer.close()
            await gets_at_last(ends.browser, b"")
            assert ("service restart", None) == (ends.tunnel.ended_for, ends.tunnel.error)

        talk(conversation, notebook=notebook)

    def test_nothing_of_the_instance_follows(self) -> None:
        """It may not have noticed yet."""

        async def conversation(ends: Ends) -> None:
            say_farewell(ends)
            ends.instance.writer.write(TEXT * 1000)
            await ends.passes(ends.browser, MASKED_CLOSE)
            ends.instance.writer.write(TEXT * 1000)
            ends.instance.writer.close()
            await gets_at_last(ends.browser, FAREWELL)
            assert 0 == ends.tunnel.up.received

        talk(conversation)

    @pytest.mark.parametrize("cut", range(1, 12))
    def test_in_the_middle_of_a_frame_its_end_is_waited_for(self, cut: int) -> None:
        """Its header may not be complete either; what stands behind it is dropped."""
        frame = b"\x82\x7e\x00\x0a" + bytes(8)
        rest = frame[cut:] + b"\x00\x00"

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, TEXT + frame[:cut])
            say_farewell(ends)
            for place in range(len(rest) - 1):
                await ends.passes(ends.instance, rest[place : place + 1])
            ends.instance.writer.write(rest[-1:] + TEXT + CLOSE)
            await gets(ends.browser, rest[-1:] + FAREWELL)
            ends.browser.writer.close()
            await gets_at_last(ends.instance, b"")

        talk(conversation)

    def test_a_frame_that_does_not_end(self) -> None:
        """After two seconds the connection is closed in the middle of it, without a word."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, TEXT[:4])
            say_farewell(ends)
            assert ends.worker.time + FAREWELL_S == ends.tunnel.deadline
            ends.tunnel.expired(ends.tunnel.deadline)
            await gets_at_last(ends.browser, b"")
            await gets_at_last(ends.instance, b"")

        talk(conversation)

    def test_what_is_no_websocket_is_closed_at_once(self) -> None:
        """There will be no boundary: nobody waits for one."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, b"SSH-2.0")
            say_farewell(ends)
            assert ends.worker.time == ends.tunnel.deadline
            ends.tunnel.expired(ends.tunnel.deadline)
            await gets_at_last(ends.browser, b"")
            await gets_at_last(ends.instance, b"")

        talk(conversation)

    def test_an_instance_that_has_closed_itself_has_the_last_word(self) -> None:
        """There is one close frame in each direction (RFC 6455 5.5.1)."""

        async def conversation(ends: Ends) -> None:
            await ends.passes(ends.instance, TEXT + CLOSE)
            say_farewell(ends)
            await ends.passes(ends.browser, MASKED_CLOSE)
            ends.instance.writer.close()
            await gets_at_last(ends.browser, b"")

        talk(conversation)

    def test_frames_that_have_passed_but_are_not_counted(self) -> None:
        """Their boundary is known a little later, and it is that one."""

        async def conversation(ends: Ends) -> None:
            ends.tunnel.up.data_received(PING * 3500 + TEXT[:3])
            say_farewell(ends)
            await gets(ends.browser, PING * 3500 + TEXT[:3])
            ends.instance.writer.write(TEXT[3:] + TEXT)
            await gets(ends.browser, TEXT[3:] + FAREWELL)

        talk(conversation)

    def test_a_browser_that_takes_its_time_gets_all_of_what_was_queued(self) -> None:
        """Ten megabytes, then the close frame, then the end; what it sends meanwhile changes nothing."""
        message = b"\x82\x7f" + (10 * 2**20).to_bytes(8) + bytes(10 * 2**20)

        async def conversation(ends: Ends) -> None:
            tunnel, browser = ends.tunnel, ends.browser
            tunnel.up.data_received(message)
            say_farewell(ends)
            taken = b""
            while queued := tunnel.down.transport.get_write_buffer_size():
                ends.worker.time = tunnel.deadline
                tunnel.expired(ends.worker.time)
                browser.writer.write(MASKED_TEXT)
                # A megabyte in two seconds: ten steps, within the thirty seconds that it may take.
                while 0 < tunnel.down.transport.get_write_buffer_size() > queued - 2**20:
                    taken += await asyncio.wait_for(browser.reader.read(2**20), _PATIENCE_S)
            tunnel.expired(tunnel.deadline)
            await gets_at_last(browser, (message + FAREWELL)[len(taken) :])

        talk(conversation)

    def test_a_browser_that_takes_nothing_is_reset(self) -> None:
        """At the second deadline at which nothing has moved."""

        async def conversation(ends: Ends) -> None:
            ends.tunnel.up.data_received(b"\x82\x7f" + (10 * 2**20).to_bytes(8) + bytes(10 * 2**20))
            say_farewell(ends)
            ends.tunnel.expired(1.0 + FAREWELL_S)
            assert 1.0 + 2 * FAREWELL_S == ends.tunnel.deadline
            ends.tunnel.expired(1.0 + 2 * FAREWELL_S)
            with pytest.raises(ConnectionError):
                await ends.browser.reader.read(-1)

        talk(conversation)

    def test_a_browser_that_does_not_answer(self) -> None:
        """After two seconds both sides are closed, and what it still sends goes nowhere."""

        async def conversation(ends: Ends) -> None:
            tunnel = ends.tunnel
            say_farewell(ends)
            await gets(ends.browser, FAREWELL)
            tunnel.expired(tunnel.deadline)
            await gets_at_last(ends.instance, b"")
            ends.browser.writer.write(MASKED_TEXT)
            await gets_at_last(ends.browser, b"")
            tunnel.expired(tunnel.deadline)
            await _until(lambda: tunnel.down.lost)
            assert 0 == tunnel.down.received

        talk(conversation)

    def test_the_first_word_is_the_only_one(self) -> None:
        """Whoever else wants it to end later."""

        async def conversation(ends: Ends) -> None:
            say_farewell(ends)
            deadline = ends.tunnel.deadline
            ends.tunnel.end(1008, "no access", 1.5)
            ends.tunnel.drain()
            assert ("service restart", deadline) == (ends.tunnel.ended_for, ends.tunnel.deadline)
            ends.instance.writer.close()
            await gets_at_last(ends.browser, FAREWELL)

        talk(conversation)

    @pytest.mark.parametrize("who", ["browser", "instance"])
    def test_half_of_it_has_ended_already(self, who: str) -> None:
        """The other half is closed too, behind what was queued."""

        async def conversation(ends: Ends) -> None:
            first, second = (
                (ends.browser, ends.instance) if who == "browser" else (ends.instance, ends.browser)
            )
            first.writer.write_eof()
            await gets_at_last(second, b"")
            assert 1.0 + LINGER_S == ends.tunnel.deadline
            say_farewell(ends)
            await gets_at_last(first, b"")
            assert "service restart" == ends.tunnel.ended_for

        talk(conversation)

    @pytest.mark.parametrize("who", ["browser", "instance"])
    def test_a_reset_meanwhile_is_passed_on(self, who: str) -> None:
        """As at any other time."""

        async def conversation(ends: Ends) -> None:
            first, second = (
                (ends.browser, ends.instance) if who == "browser" else (ends.instance, ends.browser)
            )
            say_farewell(ends)
            await gets(ends.browser, FAREWELL)
            reset(cast("asyncio.Transport", first.writer.transport))
            with pytest.raises(ConnectionError):
                await second.reader.read(-1)

        talk(conversation)


def test_an_idle_tunnel_ends_at_its_deadline_and_a_busy_one_later() -> None:
    """Any byte counts, either way."""

    async def conversation(ends: Ends) -> None:
        tunnel = ends.tunnel
        assert 61.0 == tunnel.deadline
        await ends.passes(ends.browser, MASKED_PING)
        tunnel.expired(61.0)
        assert 121.0 == tunnel.deadline
        tunnel.expired(121.0)
        assert b"" == await ends.browser.reader.read()
        assert b"" == await ends.instance.reader.read()

    talk(conversation, idle_s=60.0)


def test_without_an_idle_limit_there_is_no_deadline() -> None:
    """TCP's own probes find a peer that is gone."""

    async def conversation(ends: Ends) -> None:
        assert math.inf == ends.tunnel.deadline
        await ends.passes(ends.browser, MASKED_PING)

    talk(conversation)


def test_an_instance_that_resets_while_its_frames_are_counted_ends_the_waiting() -> None:
    """Nobody counts them to the end: who waited for that in each turn of the loop would wait for ever."""

    async def conversation(ends: Ends) -> None:
        tunnel, worker = ends.tunnel, ends.worker
        tunnel.up.data_received(b"\x89\x00" * 30_000)
        assert tunnel.up.is_behind
        tunnel.end(1008, "access withdrawn", 2.0)
        tunnel.up.hung_up()
        await _until(lambda: worker.ended)
        await asyncio.sleep(0)
        turns = worker.turns
        for _ in range(10):
            await asyncio.sleep(0)
        assert turns == worker.turns

    talk(conversation)


def test_nothing_is_said_behind_the_end_of_an_instance() -> None:
    """TLS tells the end although nobody reads: it goes on to the browser before all frames are counted."""
    raised: list[object] = []

    async def conversation(ends: Ends) -> None:
        ends.worker.loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        tunnel = ends.tunnel
        tunnel.up.data_received(PING * 30_000)
        tunnel.end(1008, "access withdrawn", 2.0)
        tunnel.up.eof_received()
        await _until(lambda: not tunnel.up.is_behind)
        await gets_at_last(ends.browser, PING * 30_000)

    talk(conversation)
    assert [] == raised


class TestCrowds:
    """Where many end at once, ends have their turn; who is cut has none any more, and is over at once."""

    @pytest.mark.parametrize("who", ["browser", "instance"])
    def test_a_reset_has_its_turn(self, who: str) -> None:
        """The other side is open until then, and what it sends goes nowhere."""

        async def conversation(ends: Ends) -> None:
            first, second = (
                (ends.browser, ends.instance) if who == "browser" else (ends.instance, ends.browser)
            )
            lost, waiting = (
                (ends.tunnel.down, ends.tunnel.up) if who == "browser" else (ends.tunnel.up, ends.tunnel.down)
            )
            turns = _let_nobody_in(ends.worker)
            reset(cast("asyncio.Transport", first.writer.transport))
            await _until(lambda: lost.lost)
            cast("asyncio.Protocol", waiting.transport.get_protocol()).data_received(TEXT)
            assert (False, 0) == (waiting.lost, waiting.received)
            while turns:
                turns.pop()()
            with pytest.raises(ConnectionError):
                await second.reader.read(-1)

        talk(conversation)

    def test_an_order_to_end_comes_while_a_reset_waits(self) -> None:
        """There is nobody any more to take leave of."""

        async def conversation(ends: Ends) -> None:
            tunnel = ends.tunnel
            turns = _let_nobody_in(ends.worker)
            reset(cast("asyncio.Transport", ends.instance.writer.transport))
            await _until(lambda: tunnel.up.lost)
            tunnel.end(1012, "service restart", 2.0)
            await gets_at_last(ends.browser, b"")
            while turns:
                turns.pop()()
            assert "service restart" == tunnel.ended_for

        talk(conversation)

    def test_cut_while_both_sides_wait(self) -> None:
        """They have said that they will send no more, and nobody has looked at it."""

        async def conversation(ends: Ends) -> None:
            _let_nobody_in(ends.worker)
            for end in (ends.browser, ends.instance):
                end.writer.close()
            ends.tunnel.cut()
            await _until(lambda: ends.worker.ended)

        talk(conversation)

    def test_cut_while_it_waits_to_be_over(self) -> None:
        """It is taken note of once, also when its turn comes after all."""

        async def conversation(ends: Ends) -> None:
            tunnel, ended = ends.tunnel, ends.worker.ended
            turns = _let_nobody_in(ends.worker)
            for end in (ends.browser, ends.instance):
                reset(cast("asyncio.Transport", end.writer.transport))
            await _until(lambda: tunnel.down.lost and tunnel.up.lost)
            assert [] == ended
            tunnel.end(1012, "service restart", 2.0)
            tunnel.cut()
            assert ([tunnel], None) == (ended, tunnel.ended_for)
            while turns:
                turns.pop()()
            assert [tunnel] == ended

        talk(conversation)


def _let_nobody_in(worker: Worker) -> list[Callable[[], None]]:
    """Have a crowd before all that comes; gives what the loop would call in its next turn."""
    turns: list[Callable[[], None]] = []
    worker.crowd = Crowd(turns.append)
    worker.crowd.wait(lambda: None)
    return turns


class _Forgetful(Worker):
    """A worker that keeps nothing of a tunnel."""

    is_over = False

    @override
    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Take note."""
        self.is_over = True


def test_what_has_ended_is_freed_at_once() -> None:
    """Without the garbage collector, which comes seldom: browsers that come and go are megabytes a minute."""

    def tunnels() -> list[Tunnel]:
        return [one for one in gc.get_objects() if isinstance(one, Tunnel)]

    async def main() -> None:
        worker = _Forgetful()
        (down, browser), (up, instance) = await _pair(), await _pair()
        Tunnel(down, up, worker, origin(notebook=1)).start(b"", b"")
        assert 1 == len(tunnels())
        del down, up
        for end in (browser, instance):
            end.writer.close()
        await _until(lambda: worker.is_over)
        await _until(lambda: not tunnels())
        worker.hangups.close()

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    finally:
        gc.enable()
