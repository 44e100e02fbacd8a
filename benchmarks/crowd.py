"""5 000 notebook sessions opened at once: all are recorded, and who asks for something else does not notice.

    python -m benchmarks.crowd [--sessions 5000] [--reports]

A few browsers ask for a small answer at a fixed pace. What they wait is measured while nothing else
happens, while as many WebSockets are opened that are no sessions, while sessions are opened, and while
these are reported to VISA: what sessions cost is the difference between the second and the third.
"""

import argparse
import asyncio
import shutil
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.counters import cpu_us
from benchmarks.driver import Driver
from benchmarks.load import TARGETS
from benchmarks.processes import Failed
from benchmarks.proxies import Running, ours
from benchmarks.world import SMALL, World, running_world

_BROWSERS: Final = 4
_PACE_S: Final = 0.02
"""Between two requests of one browser: 200 a second are far less than a worker can do."""

_REST_S: Final = 10.0
_RECORDED_S: Final = 60.0
_LOOK_S: Final = 0.5


@dataclass
class Wait:
    """What requests had to wait in one phase; seconds."""

    name: str
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    control_cpu_s: float = 0.0
    worker_cpu_s: float = 0.0

    def __str__(self) -> str:
        ordered = sorted(self.latencies)
        shown = [f"{name} {ordered[int(len(ordered) * part)] * 1e3:7.2f} ms" for name, part in _PARTS]
        cpu = f"CPU of control {self.control_cpu_s:6.2f} s, of the worker {self.worker_cpu_s:6.2f} s"
        return f"{self.name:<36}{self.seconds:7.1f} s  {'  '.join(shown)}  {len(ordered):6} requests  {cpu}"


_PARTS: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 0.999999))


class Browsers:
    """They ask from `begin` to `end`; what they wait belongs to the phase that is on."""

    def __init__(self, proxy: Running) -> None:
        self._proxy = proxy
        self._wait = Wait("")
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Connect, and ask."""
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(_BROWSERS)]
        await asyncio.sleep(_PACE_S)

    async def measure(self, name: str, work: asyncio.Future[None]) -> Wait:
        """Wait for work, and give what requests waited meanwhile. Raises what either raises."""
        control, *workers = self._proxy.child.pids()
        before = cpu_us(control), sum(map(cpu_us, workers))
        self._wait, began = Wait(name), time.perf_counter()
        await asyncio.wait([work, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                await task
        await work
        self._wait.seconds = time.perf_counter() - began
        self._wait.control_cpu_s = (cpu_us(control) - before[0]) / 1e6
        self._wait.worker_cpu_s = (sum(map(cpu_us, workers)) - before[1]) / 1e6
        return self._wait

    async def end(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.port)
        request = messages.request(TARGETS["small"])
        due = time.perf_counter() + _PACE_S * number / _BROWSERS
        try:
            while True:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(SMALL)
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise Failed(f"wrong response: {head[:200]!r}")
                # From when it was due: who waits for one answer would have asked again meanwhile.
                self._wait.latencies.append(time.perf_counter() - due)
                due += _PACE_S
        finally:
            writer.close()


def _rows(world: World, query: str) -> int:
    with closing(sqlite3.connect(world.folder / "data" / "journal.sqlite3")) as journal:
        return int(journal.execute(query).fetchone()[0])


async def _until(world: World, query: str, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := await asyncio.to_thread(_rows, world, query)) < count:
        if time.monotonic() > deadline:
            raise Failed(f"{found} of {count} after {seconds:.0f} s: {query}")
        await asyncio.sleep(_LOOK_S)


async def _measure(world: World, proxy: Running, sessions: int, *, reports: bool) -> None:
    browsers = Browsers(proxy)
    await browsers.begin()
    with ExitStack() as stack:

        def open_all(work: str) -> None:
            stack.enter_context(Driver.running(world, work, proxy.port, sessions))

        async def phase(name: str, work: asyncio.Future[None]) -> None:
            print(await browsers.measure(name, work), flush=True)  # noqa: T201 -- a command

        start = asyncio.ensure_future
        await phase("warm-up", start(asyncio.sleep(_REST_S / 2)))
        await phase("before", start(asyncio.sleep(_REST_S)))
        await phase(f"{sessions} other WebSockets", start(asyncio.to_thread(open_all, "ws")))
        # Both crowds together are more than the default lets in.
        await phase("closing them", start(asyncio.to_thread(stack.close)))
        await phase("after them", start(asyncio.sleep(_REST_S)))
        await phase(f"{sessions} notebook sessions", start(asyncio.to_thread(open_all, "kernel")))
        began = time.perf_counter()
        query = "SELECT count(*) FROM sessions WHERE closed_at IS NULL"
        await phase("until all are recorded", start(_until(world, query, sessions, _RECORDED_S)))
        print(f"all recorded {time.perf_counter() - began:.1f} s after the last 101")  # noqa: T201 -- likewise
        if reports:
            query = "SELECT count(*) FROM reports WHERE state = 'delivered'"
            await phase("until all are reported", start(_until(world, query, sessions, sessions / 20)))
        await phase("after them", start(asyncio.sleep(_REST_S)))
    await browsers.end()


def main() -> None:
    """Run it in a world of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument(
        "--reports", action="store_true", help="wait until VISA was told of all, at 100 a second"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crowd-"))
    try:
        with running_world(folder, proxy_cpu=None, load_cpus=None) as world, ours(world) as proxy:
            asyncio.run(_measure(world, proxy, arguments.sessions, reports=arguments.reports))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
