"""Keeps a worker in every place, from the start to the stop.

A place is a number from 0 on. The worker in it may die or hang, and another one follows: at once, or
later and later when it happens again and again. A worker takes only its own connections along.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from typing import Final

import msgspec

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.spawner import Spawner
from visa_jupyter_proxy.control.workers import WorkerProcess
from visa_jupyter_proxy.mailbox import EndTunnels, Message, Reload, Start
from visa_jupyter_proxy.tally import Tally
from visa_jupyter_proxy.waiting import happens

_START_S: Final = 30.0
"""How long a worker may take until it accepts connections."""

_HEALTHY_S: Final = 60.0
"""A worker that lived so long did not die of its start."""

_LATE_S: Final = 0.5
"""What a worker may take beyond the time it was given to drain."""


class Backoff:
    """How long to wait before the next try: a random part of a time that doubles.

    All of it is random ("full jitter"): workers that a common cause ends do not start in step.
    """

    FIRST_S: Final = 0.1
    LARGEST_S: Final = 10.0

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self.limit_s = self.FIRST_S

    def next(self) -> float:
        """Return seconds to wait; the next time it may be twice as many."""
        limit, self.limit_s = self.limit_s, min(2 * self.limit_s, self.LARGEST_S)
        return limit * self._jitter()

    def reset(self) -> None:
        """Begin anew: it went well."""
        self.limit_s = self.FIRST_S


class Supervisor:
    """All workers of this process."""

    def __init__(
        self,
        start: Start,
        workers: int,
        listener: socket.socket,
        spawner: Spawner,
        *,
        received: Callable[[WorkerProcess, Message], None],
        lost: Callable[[WorkerProcess], None],
    ) -> None:
        """Have `workers` workers, fewer if they may not even have one connection each.

        `start` is for the proxy as a whole. `received` is called with every message of a worker that is
        not about the process itself, `lost` once behind its last message. `listener` stays the caller's.
        """
        most = start.settings.max_connections
        self._starts = divided(start, min(workers, most) if most else workers)
        self._listener = listener
        self._spawner = spawner
        self._received = received
        self._lost = lost
        self._current: dict[int, WorkerProcess] = {}
        self._tally: Tally | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts = 0
        """Workers that were started in the place of one that had ended."""
        self._begun = asyncio.Event()
        """The first start is over, well or not: nobody is started again before."""
        self._stopping = asyncio.Event()

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that accept connections, or have done so and finish."""
        return [worker for worker in self._current.values() if worker.is_serving]

    @property
    def serving(self) -> int:
        """How many of them respond."""
        return sum(worker.is_responsive for worker in self.workers)

    @property
    def pids(self) -> dict[int, int]:
        """Place -> process id of the worker that is there."""
        found = {place: worker.pid for place, worker in self._current.items()}
        return {place: pid for place, pid in found.items() if pid is not None}

    @property
    def places(self) -> int:
        """How many workers there are meant to be."""
        return len(self._starts)

    async def start(self) -> bool:
        """Start all, and wait until each accepts connections or has ended; False when none accepts.

        To be followed by `stop` in any case. Raises `OSError` when the system refuses the memory they share.
        """
        if self.places > 1:
            self._tally = Tally.create(self.places)
        self._current = {start.place: WorkerProcess(self._spawner, self._received) for start in self._starts}
        self._tasks = [asyncio.create_task(self._keep(place)) for place in range(self.places)]
        settled = [asyncio.create_task(worker.settled.wait()) for worker in self._current.values()]
        await asyncio.wait(settled, timeout=_START_S)
        for waiting in settled:
            waiting.cancel()
        serving = bool(self.workers)
        if not serving:
            self._stopping.set()
        self._begun.set()
        return serving

    async def stop(self, seconds: float) -> None:
        """Have all finish within `seconds`, kill who does not, and wait for their last messages."""
        self._stopping.set()
        self._begun.set()
        for worker in self._current.values():
            worker.drain(seconds)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds + _LATE_S)
            if late:
                self.kill()
            await asyncio.gather(*self._tasks)
        if self._tally is not None:
            self._tally.close()

    def end_tunnels(self, message: EndTunnels, worker: int | None = None) -> None:
        """Have all workers end tunnels that fit, or the one of that number."""
        for one in self.workers:
            if worker in (None, one.number):
                one.end_tunnels(message)

    def look(self) -> None:
        """Have all workers tell what has passed through kernel channels."""
        for one in self.workers:
            one.look()

    def reload(self, start: Start) -> None:
        """Have all workers, and those that follow them, go by other settings and routes.

        `MAX_CONNECTIONS` has to be at least `places`, or 0.
        """
        self._starts = divided(start, self.places)
        for part in self._starts:
            worker = self._current.get(part.place)
            if worker is not None:
                worker.reload(Reload(settings=part.settings, routes=part.routes, pages=part.pages))

    def kill(self) -> None:
        """End all processes at once."""
        for worker in self._current.values():
            worker.kill()

    async def _keep(self, place: int) -> None:
        """Have a worker in one place until all stop."""
        backoff = Backoff()
        worker = self._current[place]
        while True:
            await self._live(worker, self._starts[place])
            await self._begun.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - worker.started_at > _HEALTHY_S:
                backoff.reset()
            await self._pause(backoff.next(), place)
            if self._stopping.is_set():
                return
            worker = self._current[place] = WorkerProcess(self._spawner, self._received)
            self.restarts += 1

    async def _live(self, worker: WorkerProcess, start: Start) -> None:
        """Return when the process has ended, and everything it has said has been heard."""
        try:
            await worker.start(self._listener, start, self._tally)
        except OSError as error:
            logs.get().error("cannot start a worker", error=error.strerror)
            worker.settled.set()
            return
        if self._stopping.is_set():
            worker.kill()  # it was being started when the others were told
        await worker.gone.wait()
        if self._tally is not None:
            self._tally.clear(start.place)
        self._lost(worker)

    async def _pause(self, seconds: float, place: int) -> None:
        left = len(self.workers)
        tell = logs.get().warning if left else logs.get().crit
        tell("a worker is missing: starting another", place=place, workers=left, in_s=round(seconds, 3))
        await happens(self._stopping, seconds)


def divided(start: Start, workers: int) -> list[Start]:
    """Give each worker its part of what is counted for the proxy as a whole.

    The parts of `MAX_CONNECTIONS` add up to it, and differ by one at most.
    """
    settings = start.settings
    each, more = divmod(settings.max_connections, workers)
    return [
        Start(
            settings=msgspec.structs.replace(settings, max_connections=each + (place < more)),
            routes=start.routes,
            pages=start.pages,
            place=place,
            places=workers,
        )
        for place in range(workers)
    ]
