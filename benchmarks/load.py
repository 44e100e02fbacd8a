"""Our own client: cheap enough to keep a proxy busy, and honest about what it got.

    python -m benchmarks.load WORK PORT CONNECTIONS [TOGETHER]

It connects, lets every connection do its work once, and says so on standard output; TOGETHER of them come
at a time (default: 50), each asking as soon as it is connected. Then each line of
standard input, `count N` or `seconds S`, makes it do the work so often or so long, on all connections at
once (with `ramp N` on more and more of them), and answer with one line of JSON: `done`, `seconds` and
`latency_us`, or `error`. When standard input ends, it closes its connections and goes. A wrong status or
length is an error, and ends everything.
"""

import asyncio
import itertools
import json
import sys
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, cast

import uvloop

from benchmarks import messages, transfers
from benchmarks.world import PAGE, SMALL, STREAM

_HEAD_END: Final = b"\r\n\r\n"
_SILENCE_S: Final = 60.0
_BATCH: Final = 50
"""How many come at a time, unless told: nobody comes in thousands at once."""

TARGETS: Final = {
    "small": "/jupyter/1/small",
    "cold": "/jupyter/1/small",
    "connection": "/jupyter/1/small",
    "stream": "/jupyter/1/stream",
}

KERNEL: Final = "/jupyter/2/api/kernels/{id}/channels?session_id={id}"
PLAIN: Final = "/jupyter/2/terminals/websocket/{id}"


class Wrong(Exception):
    """The answer was not the one that was due."""


class Crowd:
    """All connections, and how much is still to be done."""

    def __init__(self) -> None:
        self.latencies = array("d")
        self.orders = 0
        self.to_start = 0
        self.stop_at = 0.0
        self.under_way = 0
        self.began = 0.0
        self.once = False
        self.waiting: list[Client] = []
        """Those that begin only when others have been answered."""
        self.finished: asyncio.Future[None]
        self.now = time.perf_counter

    def expect(self, count: int, seconds: float = 0.0, *, once: bool = False) -> None:
        """Begin anew: `count` units of work are to be done, or what can be begun in `seconds`.

        `once`: by each connection one.
        """
        self.orders += 1
        self.once = once
        self.finished = asyncio.get_running_loop().create_future()
        self.latencies = array("d")
        self.began = self.now()
        self.to_start = count
        self.stop_at = self.began + seconds if seconds else 0.0
        self.waiting = []

    async def finish(self, patience_s: float) -> dict[str, object]:
        """Wait for the last answer, and say what was done. Raises `Wrong` or `TimeoutError`."""
        async with asyncio.timeout(patience_s):
            await self.finished
        return {
            "done": len(self.latencies),
            "seconds": self.now() - self.began,
            "latency_us": percentiles(self.latencies),
        }

    @property
    def wants_more(self) -> bool:
        """Whether more is to be begun."""
        return self.to_start > 0 and not (self.stop_at and self.now() >= self.stop_at)

    def may_start(self) -> bool:
        """Whether a connection shall do its work once more; then it has begun."""
        if not self.wants_more:
            return False
        self.to_start -= 1
        self.under_way += 1
        return True

    def done(self, began: float) -> None:
        """Count one unit of work, complete and correct."""
        self.latencies.append(self.now() - began)
        self.under_way -= 1
        # Every second answer lets one more begin: no listening socket is overrun.
        if self.waiting and len(self.latencies) % 2 == 0:
            self.waiting.pop().go()

    def rest(self) -> None:
        """Note that a connection has nothing to do any more."""
        if not (self.under_way or self.wants_more or self.finished.done()):
            self.finished.set_result(None)

    def failed(self, why: str) -> None:
        """Give up."""
        if not self.finished.done():
            self.finished.set_exception(Wrong(why))


class Client(asyncio.Protocol):
    """One connection that does one kind of work again and again."""

    connects_anew = False
    """Whether each unit of work has a connection of its own."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is connected
        self.began = 0.0
        self.expects_close = False
        self._connecting: asyncio.Task[object]

    def connect(self, port: int) -> None:
        """Connect anew; `connection_made` goes on."""
        loop = asyncio.get_running_loop()
        self._connecting = loop.create_task(loop.create_connection(lambda: self, "127.0.0.1", port))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to write to."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take an end that nobody asked for as a failure."""
        if not self.expects_close:
            self.crowd.failed(f"connection lost: {exc}")

    def go(self) -> None:
        """Do the work until there is no more."""
        if self.crowd.may_start():
            self.began = self.crowd.now()
            self.begin()
        else:
            self.crowd.rest()

    def begin(self) -> None:
        """Start one unit of work."""
        raise NotImplementedError

    def leave(self) -> None:
        """Close the connection."""
        self.expects_close = True
        if self.transport is not None:
            self.transport.abort()

    def finish(self) -> None:
        """End one, and go on."""
        self.crowd.done(self.began)
        if self.crowd.once:
            self.crowd.rest()
        else:
            self.go()


class Requests(Client):
    """The same request over and over, on one connection."""

    def __init__(self, crowd: Crowd, target: str, size: int) -> None:
        super().__init__(crowd)
        self._request = messages.request(target)
        self._size = size
        self._left = 0
        self._head = b""

    def begin(self) -> None:
        """Send the request."""
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count down the response."""
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(_HEAD_END)
            if end < 0:
                return
            self._left = self._size + end + 4 - len(self._head)
            check(self._head[: end + 4], self._size, self.crowd)
            self._head = b""
        if self._left < 0:
            self.crowd.failed("more bytes than announced")
        elif not self._left:
            self.complete()

    def complete(self) -> None:
        """Have the whole response."""
        self.finish()


class Reconnecting(Requests):
    """The same request over and over, each on a connection of its own, which the proxy closes."""

    connects_anew = True

    def __init__(self, crowd: Crowd, target: str, size: int, port: int) -> None:
        super().__init__(crowd, target, size)
        self._request = messages.request(target, close=True)
        self._port = port

    def begin(self) -> None:
        """Connect; the request follows."""
        self.expects_close = False
        self.connect(self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        super().connection_made(transport)
        self.transport.write(self._request)

    def complete(self) -> None:
        """Wait for the end of the connection."""
        self.expects_close = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it, when all of it was in order."""
        super().connection_lost(exc)
        if self.expects_close:
            self.finish()


def check(head: bytes, size: int, crowd: Crowd) -> None:
    """Fail unless the response is a 200 of this size, framed by its length."""
    if not head.startswith(b"HTTP/1.1 200 ") or b"\r\ncontent-length: %d\r\n" % size not in head.lower():
        crowd.failed(f"wrong response: {head.decode('latin-1')[:500]}")


class WebSocket(Client):
    """A WebSocket that is opened once, and echoes one message over and over."""

    def __init__(self, crowd: Crowd, target: str, size: int) -> None:
        super().__init__(crowd)
        self._upgrade = messages.upgrade(target)
        payload = bytes(range(256)) * (size // 256 + 1)
        self._message = messages.frame(payload[:size], masked=True)
        self._echo = messages.frame(payload[:size], masked=False)
        self._seen = bytearray()
        self._left = 0
        self.is_open = False

    def begin(self) -> None:
        """Send the message, after the handshake if there was none yet."""
        if self.is_open:
            self._left = len(self._echo)
            self.transport.write(self._message)
        else:
            self.transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        """Compare what comes back: a small message whole, of a large one the first bytes and the size."""
        if not self.is_open:
            self._opened(data)
            return
        if self._left == len(self._echo) and data[:14] != self._echo[: min(14, len(data))]:
            self.crowd.failed(f"wrong echo: {data[:14]!r}")
        self._left -= len(data)
        if not self._left:
            self.finish()
        elif self._left < 0:
            self.crowd.failed("more came back than was sent")

    def _opened(self, data: bytes) -> None:
        self._seen += data
        if _HEAD_END in self._seen:
            if not self._seen.startswith(b"HTTP/1.1 101 ") or not self._seen.endswith(_HEAD_END):
                self.crowd.failed(f"not opened: {bytes(self._seen[:500])!r}")
            self.is_open = True
            self.opened()

    def opened(self) -> None:
        """Send the first message."""
        self.begin()


class Cold(Requests):
    """A request with a token that belongs to this burst alone: nobody has seen it before."""

    def begin(self) -> None:
        """Send the request with this burst's token."""
        self.transport.write(_request_of(self.crowd.orders))


@lru_cache(maxsize=1)
def _request_of(burst: int) -> bytes:
    # 0 is the token of all other work; the clock, for another client on the same proxy has come before.
    return messages.request(TARGETS["cold"], serial=time.time_ns() + burst)


class Page(Requests):
    """The requests of a page, in order, each on the first connection that is free."""

    def __init__(self, crowd: Crowd, requests: Iterator[tuple[bytes, int]]) -> None:
        super().__init__(crowd, "", 0)
        self._requests = requests

    def begin(self) -> None:
        """Send the next request."""
        self._request, self._size = next(self._requests)
        super().begin()


def requests_of_page() -> Iterator[tuple[bytes, int]]:
    """Give the recorded requests and the sizes of their answers, again and again."""
    recorded = json.loads(PAGE.read_text())
    return itertools.cycle([(messages.request(one["target"]), one["bytes"]) for one in recorded])


class Opening(WebSocket):
    """A WebSocket for each unit of work: connected, opened, closed by a close frame, gone."""

    connects_anew = True

    def __init__(self, crowd: Crowd, target: str, port: int) -> None:
        super().__init__(crowd, target, 0)
        self._port = port

    def begin(self) -> None:
        """Connect; the upgrade follows."""
        self.is_open, self.expects_close, self._seen = False, False, bytearray()
        self.connect(self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        super().connection_made(transport)
        self.transport.write(self._upgrade)

    def opened(self) -> None:
        """Send a close frame, as a browser does that leaves (RFC 6455 7.1.1: the server closes TCP)."""
        self.transport.write(_CLOSE_SENT)

    def data_received(self, data: bytes) -> None:
        """Wait for the handshake, then for the other close frame."""
        if not self.is_open:
            self._opened(data)
        elif data != _CLOSE_DUE:
            self.crowd.failed(f"no close frame: {data!r}")
        else:
            self.expects_close = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it, when all of it was in order."""
        if self.expects_close:
            self.finish()
        else:
            self.crowd.failed(f"connection lost: {exc}")


_CLOSE_SENT: Final = messages.frame(b"\x03\xe8", messages.CLOSE, masked=True)
_CLOSE_DUE: Final = messages.frame(b"\x03\xe8", messages.CLOSE, masked=False)


def clients(work: str, crowd: Crowd, connections: int, port: int) -> list[Client]:
    """Make the clients for a kind of work, one for each connection."""
    numbers = range(connections)
    match work:
        case "small" | "stream" | "cold":
            kind = Cold if work == "cold" else Requests
            return [kind(crowd, TARGETS[work], STREAM if work == "stream" else SMALL) for _ in numbers]
        case "connection":
            return [Reconnecting(crowd, TARGETS[work], SMALL, port) for _ in numbers]
        case "page":
            requests = requests_of_page()
            return [Page(crowd, requests) for _ in numbers]
        case "ws" | "ws64k":
            return [WebSocket(crowd, PLAIN.format(id=n), STREAM if work == "ws64k" else 64) for n in numbers]
        case "kernel":
            return [WebSocket(crowd, KERNEL.format(id=uuid.UUID(int=n)), 64) for n in numbers]
        case "open" | "openkernel":
            target = KERNEL if work == "openkernel" else PLAIN
            return [Opening(crowd, target.format(id=uuid.UUID(int=n)), port) for n in numbers]
    raise SystemExit(f"{work} is no work that this client knows")


async def run(work: str, port: int, connections: int, together: int) -> None:
    """Connect, warm up, then obey standard input."""
    loop = asyncio.get_running_loop()
    crowd = Crowd()
    everyone = clients(work, crowd, connections, port)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        say(await _warm_up(crowd, everyone, port, together))
        while order := (await lines.readline()).decode():
            say(await obey(order, crowd, everyone))
    except (Wrong, OSError) as error:  # TimeoutError is one
        say({"error": str(error) or "no answer in time"})
    for one in everyone:
        one.leave()


async def _warm_up(crowd: Crowd, everyone: list[Client], port: int, together: int) -> dict[str, object]:
    """Connect, and have every connection work once."""
    answer: dict[str, object] = {}
    for batch in itertools.batched(everyone, together):
        crowd.expect(len(batch), once=True)
        await asyncio.gather(*(_come(one, port) for one in batch))
        answer = await crowd.finish(_SILENCE_S)
    return answer


async def _come(one: Client, port: int) -> None:
    if not one.connects_anew:
        await asyncio.get_running_loop().create_connection(lambda: one, "127.0.0.1", port)
    one.go()


def say(answer: dict[str, object]) -> None:
    """Write a line to whoever commands us."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def obey(order: str, crowd: Crowd, everyone: Sequence[Client]) -> dict[str, object]:
    """Do what a line says. Raises `Wrong` or `TimeoutError`."""
    kind, amount = order.split()
    if kind == "seconds":
        crowd.expect(sys.maxsize, seconds=float(amount))
    else:
        crowd.expect(int(amount))
    first = _BATCH if kind == "ramp" else len(everyone)
    crowd.waiting = list(everyone[first:])
    for one in everyone[:first]:
        one.go()
    return await crowd.finish(_SILENCE_S + float(amount))


def percentiles(latencies: "array[float]") -> dict[str, float]:
    """Give p50 and p99 in microseconds."""
    ordered = sorted(latencies)
    return {name: ordered[int(len(ordered) * part)] * 1e6 for name, part in (("p50", 0.5), ("p99", 0.99))}


def main(work: str, port: int, connections: int, together: int = _BATCH) -> None:
    """Do one kind of work."""
    if work in transfers.WORKS:
        transfers.run(work, port)
    else:
        uvloop.run(run(work, port, connections, together))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
