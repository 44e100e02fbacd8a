"""Our own client: cheap enough to keep a proxy busy, and honest about what it got.

    python -m benchmarks.load WORK PORT CONNECTIONS

It connects, lets every connection do its work once, and says so on standard output. Then each line of
standard input, `count N` or `seconds S`, makes it do the work so often or so long, on all connections at
once, and answer with one line of JSON: `done`, `seconds`, `latency_us`, or `error`. When standard input
ends, it closes its connections and goes. A wrong status or length is an error, and ends everything.
"""

import asyncio
import json
import sys
import time
from array import array
from typing import Final, cast

import uvloop

from benchmarks import messages
from benchmarks.world import SMALL, STREAM

_HEAD_END: Final = b"\r\n\r\n"
_SILENCE_S: Final = 60.0

KERNEL: Final = "/jupyter/2/api/kernels/{id}/channels?session_id={id}"
PLAIN: Final = "/jupyter/2/terminals/websocket/{id}"


class Wrong(Exception):
    """The answer was not the one that was due."""


class Crowd:
    """All connections, and how much is still to be done."""

    def __init__(self) -> None:
        self.latencies = array("d")
        self.to_start = 0
        self.stop_at = 0.0
        self.under_way = 0
        self.finished: asyncio.Future[None]
        self.now = time.perf_counter

    def may_start(self) -> bool:
        """Whether a connection shall do its work once more."""
        if self.to_start <= 0 or (self.stop_at and self.now() >= self.stop_at):
            return False
        self.to_start -= 1
        self.under_way += 1
        return True

    def done(self, began: float) -> None:
        """Count one unit of work, complete and correct."""
        self.latencies.append(self.now() - began)
        self.under_way -= 1

    def rest(self) -> None:
        """Note that a connection has nothing to do any more."""
        if not self.under_way and not self.finished.done():
            self.finished.set_result(None)

    def failed(self, why: str) -> None:
        """Give up."""
        if not self.finished.done():
            self.finished.set_exception(Wrong(why))


class Client(asyncio.Protocol):
    """One connection that does one kind of work again and again."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.transport: asyncio.Transport
        self.began = 0.0
        self.expects_close = False

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

    def finish(self) -> None:
        """End one, and go on."""
        self.crowd.done(self.began)
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


def client(work: str, crowd: Crowd, number: int) -> Client:
    """Make the client of a connection for a kind of work."""
    match work:
        case "small":
            return Requests(crowd, "/jupyter/1/small", SMALL)
        case "stream":
            return Requests(crowd, "/jupyter/1/stream", STREAM)
        case "ws" | "ws64k":
            return WebSocket(crowd, PLAIN.format(id=number), STREAM if work == "ws64k" else 64)
        case "kernel":
            return WebSocket(crowd, KERNEL.format(id=f"{number:036}"), 64)
    raise SystemExit(f"{work} is no work that this client knows")


async def run(work: str, port: int, connections: int) -> None:
    """Connect, warm up, then obey standard input."""
    loop = asyncio.get_running_loop()
    crowd = Crowd()
    clients = []
    for number in range(connections):
        one = client(work, crowd, number)
        clients.append(one)
        await loop.create_connection(lambda one=one: one, "127.0.0.1", port)  # type: ignore[misc]
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    order = f"count {connections}"
    while order:
        try:
            say(await _obey(order, crowd, clients))
        except (Wrong, TimeoutError) as error:
            say({"error": str(error) or "no answer in time"})
            return
        order = (await lines.readline()).decode()
    for one in clients:
        one.expects_close = True
        one.transport.abort()


def say(answer: dict[str, object]) -> None:
    """Write a line to whoever commands us."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _obey(order: str, crowd: Crowd, clients: list[Client]) -> dict[str, object]:
    kind, amount = order.split()
    crowd.finished = asyncio.get_running_loop().create_future()
    crowd.latencies = array("d")
    began = time.perf_counter()
    crowd.to_start = int(amount) if kind == "count" else sys.maxsize
    crowd.stop_at = began + float(amount) if kind == "seconds" else 0.0
    allowed = _SILENCE_S + (float(amount) if kind == "seconds" else 0.0)
    for one in clients:
        one.go()
    async with asyncio.timeout(allowed):
        await crowd.finished
    return {
        "done": len(crowd.latencies),
        "seconds": time.perf_counter() - began,
        "latency_us": percentiles(crowd.latencies),
    }


def percentiles(latencies: "array[float]") -> dict[str, float]:
    """Give p50 and p99 in microseconds."""
    ordered = sorted(latencies)
    return {name: ordered[int(len(ordered) * part)] * 1e6 for name, part in (("p50", 0.5), ("p99", 0.99))}


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
