"""5 000 notebook sessions opened at once: all are recorded, and who asks for something else does not notice.

    python -m benchmarks.crowd [--sessions 5000] [--together 5000] [--rounds 2] [--cpus free] [--workers 1]
    make bench-crowd CPUS=apart

A few browsers ask for a small answer at a fixed pace, on connections of their own. What they wait is
measured while nothing else happens, while a crowd connects and each of it opens a WebSocket that is no
session as soon as it is connected, while as many sessions are opened, and while either crowd leaves at
once. What sessions cost is the difference between the two crowds.

The clients and the instances of a benchmark are on the same machine. Where they should not matter, the worker
gets the last CPU and everything else the others, and the browsers and their instance come first there: with
`--cpus apart` the worker comes first, too, whatever else the machine does; with `--cpus shared` control is on
the worker's CPU, as on a node whose CPUs are all busy. Both want two CPUs and root.
"""

import argparse
import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import command, messages
from benchmarks.counters import cpu_us
from benchmarks.driver import Driver
from benchmarks.load import TARGETS
from benchmarks.processes import Failed
from benchmarks.proxies import Running, ours
from benchmarks.world import SMALL, World, running_world

_BROWSERS: Final = 4
_PACE_S: Final = 0.02
"""Between two requests of one browser: 200 a second are far less than a worker can do."""

_REST_S: Final = 5.0
_RECORDED_S: Final = 60.0
_LOOK_S: Final = 0.5
_LINGERED_S: Final = 8.0
"""After which sessions are closed, and that is recorded: `SESSION_LINGER_S` and more."""

_PARTS: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 0.999999))


@dataclass
class Wait:
    """What requests had to wait in one kind of phase, in all rounds; seconds."""

    name: str
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    control_cpu_s: float = 0.0
    worker_cpu_s: float = 0.0

    def __str__(self) -> str:
        ordered = sorted(self.latencies)
        shown = [f"{name} {ordered[int(len(ordered) * part)] * 1e3:7.2f} ms" for name, part in _PARTS]
        cpu = f"CPU of control {self.control_cpu_s:6.2f} s, of the worker {self.worker_cpu_s:6.2f} s"
        return f"{self.name:<28}{self.seconds:7.1f} s  {'  '.join(shown)}  {len(ordered):6} requests  {cpu}"


class Browsers:
    """They ask from `begin` to `end`; what they wait belongs to the phase that is on."""

    def __init__(self, proxy: Running) -> None:
        self.waits: dict[str, Wait] = {}
        self._proxy = proxy
        self._wait = Wait("")
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Connect, and ask."""
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(_BROWSERS)]
        await asyncio.sleep(_PACE_S)

    async def measure(self, name: str, work: asyncio.Future[None]) -> None:
        """Wait for work, and keep what requests waited meanwhile. Raises what either raises."""
        control, *workers = self._proxy.child.pids()
        before = cpu_us(control), sum(map(cpu_us, workers))
        wait = self._wait = self.waits.setdefault(name, Wait(name))
        began = time.perf_counter()
        await asyncio.wait([work, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                await task
        await work
        wait.seconds += time.perf_counter() - began
        wait.control_cpu_s += (cpu_us(control) - before[0]) / 1e6
        wait.worker_cpu_s += (sum(map(cpu_us, workers)) - before[1]) / 1e6

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


class Crowds:
    """Opens and closes crowds, and looks into the journal."""

    def __init__(self, world: World, proxy: Running, browsers: Browsers, together: int) -> None:
        self._world = world
        self._proxy = proxy
        self._browsers = browsers
        self._together = together

    async def round(self, work: str, name: str, count: int) -> None:
        """Have a crowd come and go."""
        measure, start = self._browsers.measure, asyncio.ensure_future
        with ExitStack() as stack:

            def open_all() -> None:
                stack.enter_context(
                    Driver.running(self._world, work, self._proxy.port, count, self._together)
                )

            async def close_all() -> None:
                await asyncio.to_thread(stack.close)
                await asyncio.sleep(1)  # what they leave behind

            await measure("nothing else", start(asyncio.sleep(_REST_S)))
            await measure(f"{count} {name}", start(asyncio.to_thread(open_all)))
            if work == "kernel":
                began = time.perf_counter()
                await measure("until all are recorded", start(self._recorded(count)))
                sys.stdout.write(
                    f"all recorded {time.perf_counter() - began:.1f} s after the last 101, at most\n"
                )
            await measure("while they are open", start(asyncio.sleep(_REST_S)))
            await measure(f"{name} leave", start(close_all()))
        if work == "kernel":
            await measure("until they are closed", start(asyncio.sleep(_LINGERED_S)))

    async def _recorded(self, count: int) -> None:
        deadline = time.monotonic() + _RECORDED_S
        while (found := await asyncio.to_thread(self._open_sessions)) < count:
            if time.monotonic() > deadline:
                raise Failed(f"{found} of {count} recorded after {_RECORDED_S:.0f} s")
            await asyncio.sleep(_LOOK_S)

    def _open_sessions(self) -> int:
        with closing(sqlite3.connect(self._world.folder / "data" / "journal.sqlite3")) as journal:
            query = "SELECT count(*) FROM sessions WHERE closed_at IS NULL"
            return int(journal.execute(query).fetchone()[0])


def _place(proxy: Running, cpus: str) -> None:
    """Give every role its CPU, and its turn there."""
    *_, last = sorted(os.sched_getaffinity(0))
    control, *workers = proxy.child.pids()
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(2))
    for thread in _threads([*workers, control] if cpus == "shared" else workers):
        os.sched_setaffinity(thread, {last})
        if cpus == "apart":
            # Not real-time: the kernel has those rest for 50 ms when they have worked for 950 (sched(7)).
            os.setpriority(os.PRIO_PROCESS, thread, -20)


def _threads(pids: Iterable[int]) -> list[int]:
    return [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]


def _load_cpus() -> str:
    *others, _ = sorted(os.sched_getaffinity(0))
    if not others or os.geteuid() != 0:
        raise SystemExit("--cpus apart and shared want two CPUs and root")
    return ",".join(map(str, others))


async def _measure(world: World, proxy: Running, options: argparse.Namespace) -> None:
    browsers = Browsers(proxy)
    await browsers.begin()
    crowds = Crowds(world, proxy, browsers, options.together or options.sessions)
    await browsers.measure("warm-up", asyncio.ensure_future(asyncio.sleep(_REST_S)))
    for _ in range(options.rounds):
        await crowds.round("ws", "other WebSockets", options.sessions)
        await crowds.round("kernel", "notebook sessions", options.sessions)
    await browsers.end()
    sys.stdout.writelines(f"{wait}\n" for name, wait in browsers.waits.items() if name != "warm-up")


def run(options: argparse.Namespace) -> int:
    """Run it in a world of its own, and return the exit status."""
    placed = options.cpus != "free"
    load_cpus = _load_cpus() if placed else None
    with (
        tempfile.TemporaryDirectory(prefix="visa-bench-") as folder,
        running_world(Path(folder), proxy_cpu=None, load_cpus=load_cpus, first=placed) as world,
        ours(world, WORKERS=str(options.workers)) as proxy,
    ):
        if placed:
            _place(proxy, options.cpus)
        asyncio.run(_measure(world, proxy, options))
    return 0


def main() -> None:
    """Do what the command line says."""
    parser = command.Parser(prog="python -m benchmarks.crowd", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=command.count, default=5000, help="how many a crowd opens: 5000")
    parser.add_argument("--together", type=command.count, help="how many come at a time: all, if not told")
    parser.add_argument(
        "--rounds", type=command.count, default=2, help="how often both crowds come and go: 2"
    )
    parser.add_argument(
        "--cpus", choices=("free", "apart", "shared"), default="free", help="who may use which CPU: free"
    )
    parser.add_argument("--workers", type=command.count, default=1, help="of the proxy: 1")
    options = parser.parse_args()
    command.run(lambda: run(options))


if __name__ == "__main__":
    main()
