"""Bytes through the kernel: exact, in order, behind what was queued, and nothing left behind."""

import asyncio
import hashlib
import os
import random
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast, override

import pytest
import uvloop

from visa_jupyter_proxy.worker.sockets.splice import Splice, Splices

KIB: Final = 1024
MIB: Final = 1024 * KIB
_PATIENCE_S: Final = 20.0


class Side(asyncio.Protocol):
    """One of our connections: the source or the sink of a splice, or both."""

    def __init__(self) -> None:
        self.open: asyncio.Transport | None = None
        self.splice: Splice | None = None
        self.passed_count = 0
        self.told: list[str] = []
        """What it was told, but for counts."""
        self.received = bytearray()
        """What came through the loop."""
        self.ended = False
        self.then: Callable[[], None] | None = None
        """What it does when it is told of progress."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection, while there is one."""
        return self.open

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.open = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.received += data

    @override
    def eof_received(self) -> bool:
        self.ended = True
        return True

    @override
    def pause_writing(self) -> None:
        self.told.append("full")

    @override
    def resume_writing(self) -> None:
        self.told.append("drained")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.open = None
        self.told.append("lost")

    def passed(self, count: int) -> None:
        """Count."""
        self.passed_count += count
        if self.then is not None:
            self.then()

    def read_on(self) -> None:
        """Let the loop read."""
        self.told.append("read on")
        if self.open is not None:
            self.open.resume_reading()

    def hung_up(self) -> None:
        """Note it."""
        self.told.append("hung up")


class Ends:
    """A source and a sink, connected to two peers that the test plays."""

    def __init__(self, splices: Splices) -> None:
        self.splices = splices
        self.loop = asyncio.get_running_loop()
        self.source, self.sink = Side(), Side()
        self.giver, self.taker = self._connect(), self._connect()

    def _connect(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        far.setblocking(False)
        return near, far

    async def open(self) -> None:
        """Hand our sockets to the loop."""
        for side, (near, _) in ((self.source, self.giver), (self.sink, self.taker)):
            await self.loop.connect_accepted_socket(_returning(side), near)
        await asyncio.sleep(0)  # uvloop begins to read in the next turn
        assert self.source.open is not None
        self.source.open.pause_reading()

    def begin(self, length: int) -> Splice:
        """Begin, which must be possible."""
        splice = self.splices.begin(self.source, self.sink, length)
        assert splice is not None
        self.source.splice = splice
        return splice

    async def send(self, data: bytes) -> None:
        """Send from the source's peer."""
        await self.loop.sock_sendall(self.giver[1], data)

    async def take(self, count: int) -> bytes:
        """Read so many bytes at the sink's peer."""
        data = bytearray()
        while len(data) < count and (got := await self.loop.sock_recv(self.taker[1], count - len(data))):
            data += got
        return bytes(data)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until `condition` holds."""
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():  # noqa: ASYNC110 -- a condition of any kind, nobody to set an event
                await asyncio.sleep(0.001)

    async def until_over(self, splice: Splice) -> None:
        """Wait for the end of a splice."""
        await self.until(lambda: not splice.is_active)

    async def close(self) -> None:
        """Close all four sockets."""
        for side, (_, far) in ((self.source, self.giver), (self.sink, self.taker)):
            if side.splice is not None:
                side.splice.stop()
            if side.open is not None:
                side.open.abort()
            far.close()
        await self.until(lambda: self.source.open is self.sink.open is None)
        await asyncio.sleep(0)


def _returning(side: Side) -> Callable[[], Side]:
    return lambda: side


def open_descriptors() -> set[str]:
    """List what this process has open, but for files: the loop opens /dev/null for its own use."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            found.add(f"{descriptor.name} {descriptor.readlink()}")
    return {one for one in found if "/dev/" not in one}


def run(test: Callable[[Ends], Awaitable[None]], most: int = 4) -> None:
    """Run a test in uvloop, between fresh connections; no descriptor may be left."""

    async def main() -> None:
        before = open_descriptors()
        splices = Splices(asyncio.get_running_loop(), most)
        ends = Ends(splices)
        await ends.open()
        try:
            async with asyncio.timeout(2 * _PATIENCE_S):
                await test(ends)
        finally:
            await ends.close()
        assert set() == splices.active
        splices.close()
        await asyncio.sleep(0)
        assert open_descriptors() <= before

    uvloop.run(main())


def content(size: int) -> bytes:
    """Make bytes that are all different from their neighbours."""
    return random.Random(size).randbytes(size)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class TestBytes:
    """What arrives."""

    @pytest.mark.parametrize("seed", range(6))
    def test_any_pieces_at_any_speed(self, seed: int) -> None:
        """All arrive in order, whoever is slow, and every one is counted once."""
        size = 3 * MIB + 17

        async def test(ends: Ends) -> None:
            dice = random.Random(seed)
            data = content(size)
            lazy = dice.choice(["giver", "taker", "both", "none"])

            async def give() -> None:
                position = 0
                while position < size:
                    step = int(2 ** dice.uniform(0, 20))
                    await ends.send(data[position : position + step])
                    position += step
                    if lazy in ("giver", "both") and not dice.randrange(8):
                        await asyncio.sleep(0)

            async def take() -> str:
                digest, left = hashlib.sha256(), size
                while left:
                    piece = await ends.take(min(left, int(2 ** dice.uniform(0, 20))))
                    digest.update(piece)
                    left -= len(piece)
                    if lazy in ("taker", "both"):
                        await asyncio.sleep(0)
                return digest.hexdigest()

            splice = ends.begin(size)
            _, digest = await asyncio.gather(give(), take())
            assert hashlib.sha256(data).hexdigest() == digest
            await ends.until_over(splice)
            assert size == ends.source.passed_count

        run(test)

    def test_what_was_queued_goes_first(self) -> None:
        """Also when it is more than the kernel takes at once."""
        size, queued = MIB, content(12 * MIB)

        async def test(ends: Ends) -> None:
            assert ends.sink.open is not None
            ends.sink.open.write(queued)
            ends.begin(size)
            sender = asyncio.create_task(ends.send(content(size)))
            await ends.until(lambda: ends.sink.told == ["full"])
            assert 0 == ends.source.passed_count
            assert queued + content(size) == await ends.take(len(queued) + size)
            await sender
            assert ["full", "drained"] == ends.sink.told

        run(test)

    def test_nothing_behind_the_end_is_taken(self) -> None:
        """The loop reads it, and may write to the sink behind the body."""
        body, behind = content(MIB), b"HTTP/1.1 200 OK\r\n\r\n"

        async def test(ends: Ends) -> None:
            splice = ends.begin(len(body))
            sender = asyncio.create_task(ends.send(body + behind))
            assert body == await ends.take(len(body))
            await sender
            await ends.until_over(splice)
            assert ends.source.open is not None
            assert ends.sink.open is not None
            ends.source.open.resume_reading()
            await ends.until(lambda: len(ends.source.received) == len(behind))
            assert behind == ends.source.received
            ends.sink.open.write(b"next")
            assert b"next" == await ends.take(4)

        run(test)

    def test_one_body_after_the_other(self) -> None:
        """On the same connections, through pipes that have been used before."""

        async def test(ends: Ends) -> None:
            for size in (1, 64 * KIB, 3 * MIB, 1):
                splice = ends.begin(size)
                sender = asyncio.create_task(ends.send(content(size)))
                assert content(size) == await ends.take(size)
                await sender
                await ends.until_over(splice)

        run(test)

    def test_both_ways_at_a_time(self) -> None:
        """A connection may be the source of one splice and the sink of another."""
        size = 4 * MIB

        async def test(ends: Ends) -> None:
            assert ends.sink.open is not None
            ends.sink.open.pause_reading()
            back = ends.splices.begin(ends.sink, ends.source, size)
            there = ends.begin(size)
            assert back is not None
            answer = content(size)[::-1]
            answering = asyncio.create_task(ends.loop.sock_sendall(ends.taker[1], answer))
            asking = asyncio.create_task(ends.send(content(size)))
            taking = asyncio.create_task(ends.take(size))
            got = bytearray()
            while len(got) < size:
                got += await ends.loop.sock_recv(ends.giver[1], size)
            assert (answer, content(size)) == (bytes(got), await taking)
            await asyncio.gather(answering, asking)
            await ends.until(lambda: not (back.is_active or there.is_active))

        run(test)


class TestBackPressure:
    """A sink that is not read."""

    def test_it_holds_the_source(self) -> None:
        """What waits is in the kernel; the sink's protocol is told once, and again when it goes on."""
        size = 64 * MIB

        async def test(ends: Ends) -> None:
            ends.begin(size)
            sender = asyncio.create_task(ends.send(content(MIB) * 64))
            await ends.until(lambda: ends.sink.told == ["full"])
            stuck = -1
            while stuck != ends.source.passed_count:
                stuck = ends.source.passed_count
                await asyncio.sleep(0.2)  # a state that lasts, not a condition to come
            assert stuck < size // 2
            assert not sender.done()
            before = os.times()
            await asyncio.sleep(0.3)
            spent = os.times()
            assert spent.user + spent.system - before.user - before.system < 0.25, "busy for nothing"
            digest = hashlib.sha256(content(MIB) * 64).digest()
            assert digest == hashlib.sha256(await ends.take(size)).digest()
            await sender
            assert ends.sink.told[-1] == "drained"
            assert ends.sink.told == ["full", "drained"] * (len(ends.sink.told) // 2)

        run(test)


class TestEnds:
    """Peers that leave, and splices that are stopped."""

    @pytest.mark.parametrize("length", [2 * MIB, 2**62])
    def test_the_source_ends(self, length: int) -> None:
        """Everything before its end has arrived; the loop then reads the end itself."""
        body = content(MIB)

        async def test(ends: Ends) -> None:
            splice = ends.begin(length)
            sender = asyncio.create_task(ends.send(body))
            assert body == await ends.take(len(body))
            await sender
            assert splice.is_active
            ends.giver[1].shutdown(socket.SHUT_WR)
            await ends.until(lambda: ends.source.ended)
            assert (["read on"], False) == (ends.source.told, splice.is_active)
            assert len(body) == ends.source.passed_count

        run(test)

    def test_the_source_is_reset(self) -> None:
        """Its protocol is told, once."""

        async def test(ends: Ends) -> None:
            splice = ends.begin(MIB)
            await ends.send(b"begin")
            assert b"begin" == await ends.take(5)
            reset(ends.giver[1])
            await ends.until(lambda: ends.source.told)
            assert (["hung up"], False) == (ends.source.told, splice.is_active)
            assert [] == ends.sink.told

        run(test)

    @pytest.mark.parametrize("stuck", [False, True])
    def test_the_sink_is_reset(self, *, stuck: bool) -> None:
        """Its protocol is told of it, by us or by the loop, whichever sees it first."""

        async def test(ends: Ends) -> None:
            splice = ends.begin(64 * MIB)
            sender = asyncio.create_task(ends.send(content(MIB) * 64))
            await ends.until(lambda: "full" in ends.sink.told if stuck else ends.source.passed_count)
            reset(ends.taker[1])
            await ends.until(lambda: {"hung up", "lost"} & {*ends.sink.told})
            assert [] == ends.source.told
            splice.stop()
            sender.cancel()

        run(test)

    @pytest.mark.parametrize("when", ["at once", "waiting", "on the way", "stuck", "queued"])
    def test_it_is_stopped(self, when: str) -> None:
        """At any time, also twice; nothing moves after that."""

        async def test(ends: Ends) -> None:
            assert ends.sink.open is not None
            if when == "queued":
                ends.sink.open.write(content(12 * MIB))
            splice = ends.begin(64 * MIB)
            sender = asyncio.create_task(asyncio.sleep(0))
            if when == "waiting":
                await asyncio.sleep(0.01)
            elif when in ("on the way", "stuck", "queued"):
                sender.cancel()
                sender = asyncio.create_task(ends.send(content(MIB) * 64))
                await ends.until(lambda: ends.source.passed_count or ends.sink.told)
            if when == "stuck":
                await ends.until(lambda: "full" in ends.sink.told)
            splice.stop()
            splice.stop()
            passed = ends.source.passed_count
            await asyncio.sleep(0.05)
            assert (passed, []) == (ends.source.passed_count, ends.source.told)
            sender.cancel()

        run(test)

    def test_it_is_stopped_by_those_it_tells(self) -> None:
        """Whoever learns of progress may end it."""

        async def test(ends: Ends) -> None:
            splice = ends.begin(64 * MIB)
            ends.source.then = splice.stop
            sender = asyncio.create_task(ends.send(content(MIB) * 64))
            await ends.until_over(splice)
            passed_count = ends.source.passed_count
            await asyncio.sleep(0.05)
            assert passed_count == ends.source.passed_count
            sender.cancel()

        run(test)


class Unspliceable(asyncio.Transport):
    """A transport over something that the kernel does not splice."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.sent = bytearray()

    @override
    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if name == "socket" else default

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    @override
    def resume_reading(self) -> None:
        pass

    @override
    def abort(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Return what it is over."""
        return self._descriptor


class TestWithout:
    """When it cannot be done, bytes go the other way."""

    def test_there_are_only_so_many(self) -> None:
        """The next one is refused until one has ended."""

        async def test(ends: Ends) -> None:
            splice = ends.begin(MIB)
            assert None is ends.splices.begin(ends.sink, ends.source, MIB)
            splice.stop()
            again = ends.splices.begin(ends.sink, ends.source, MIB)
            assert again is not None
            again.stop()

        run(test, most=1)

    def test_without_descriptors(self) -> None:
        """It is refused, and nothing is raised."""

        async def test(ends: Ends) -> None:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
            try:
                assert None is ends.splices.begin(ends.source, ends.sink, MIB)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        run(test)

    def test_connections_that_are_gone(self) -> None:
        """Nothing begins between them."""

        async def test(ends: Ends) -> None:
            assert ends.sink.open is not None
            ends.sink.open.close()
            assert None is ends.splices.begin(ends.source, ends.sink, MIB)
            await ends.until(lambda: ends.sink.open is None)
            assert None is ends.splices.begin(ends.source, ends.sink, MIB)

        run(test)

    def test_a_sink_that_the_kernel_refuses(self, tmp_path: Path) -> None:
        """What was taken is written the other way, the rest is read the other way, and nobody tries again."""

        async def test(ends: Ends) -> None:
            # Nothing can be spliced into what is open for appending.
            target = Unspliceable(os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND))
            sink = Side()
            sink.open = target
            await ends.send(b"taken")
            splice = ends.splices.begin(ends.source, sink, MIB)
            assert splice is not None
            await ends.until(lambda: ends.source.told)
            await ends.send(b"read")
            await ends.until(lambda: ends.source.received)
            assert (b"taken", b"read") == (bytes(target.sent), bytes(ends.source.received))
            assert 5 == ends.source.passed_count
            assert (["read on"], []) == (ends.source.told, sink.told)
            assert None is ends.splices.begin(ends.source, ends.sink, MIB)
            target.abort()

        run(test)

    def test_a_source_that_the_kernel_refuses(self) -> None:
        """It reads on by itself."""

        async def test(ends: Ends) -> None:
            source = Side()
            source.open = Unspliceable(os.eventfd(1))
            assert ends.splices.begin(source, ends.sink, MIB) is not None
            await ends.until(lambda: source.told)
            assert ["read on"] == source.told
            source.open.abort()

        run(test)


def test_many_share_the_loop() -> None:
    """While several bodies flow as fast as they can, other callbacks have their turns."""
    size, count = 64 * MIB, 6

    async def main() -> None:
        splices = Splices(asyncio.get_running_loop(), count)
        all_ends = [Ends(splices) for _ in range(count)]
        for ends in all_ends:
            await ends.open()
        block = content(MIB)

        async def give(ends: Ends) -> None:
            for _ in range(size // MIB):
                await ends.send(block)

        work: list[Coroutine[Any, Any, Any]] = []
        for ends in all_ends:
            ends.begin(size)
            work += [give(ends), ends.take(size)]
        flowing = asyncio.gather(*work)
        turns = 0
        while not flowing.done():
            await asyncio.sleep(0)
            turns += 1
        await flowing
        moved = [ends.source.passed_count for ends in all_ends]
        assert [size] * count == moved
        # Four pipes full at most between two turns of ours.
        assert turns > size * count // (4 * MIB)
        for ends in all_ends:
            await ends.close()
        splices.close()

    uvloop.run(main())
