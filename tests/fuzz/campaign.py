"""A run: mutated messages for some time against a proxy that is watched, and what was found.

Every minute and at the end all stop talking, and the proxy has to be as it was at its start: no descriptor,
no task and no memory may be left of what was.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from fuzz.mutation import Stock
from fuzz.peers import Canary, Clients, Forbidden, Log, MutatedInstance, filled
from fuzz.seeds import ANSWERS, REQUESTS, WORDS
from support.proxy import RunningProxy, environment
from support.usage import Start
from support.visa_api import VisaApiServer, visa_api_thread

_CLIENTS: Final = 32

_ROUND_S: Final = 60.0
"""How long they talk between two looks at what is left."""

_SETTINGS: Final = {
    "API_TIMEOUT_S": "2",
    "CACHE_REFRESH_TIME_S": "5",
    "CONNECT_TIMEOUT_S": "1",
    "RESPONSE_TIMEOUT_S": "2",
    "HEADER_TIMEOUT_S": "1",
    "BODY_TIMEOUT_S": "1",
    "WRITE_TIMEOUT_S": "1",
    "IDLE_TIMEOUT_S": "1",
    "TUNNEL_IDLE_TIMEOUT_S": "1",
}
"""Every deadline is met often in a short run."""

_TOKEN: Final = "header.payload-of-the-fuzzer.signature"
_MUTATED, _FORBIDDEN, _CANARY = 12, 13, 770_014  # far from what a mutation makes of 12
_HOSTS: Final = {_MUTATED: "127.79.0.12", _CANARY: "127.79.0.13", _FORBIDDEN: "127.79.0.14"}

_ALARMING: Final = re.compile(
    rb'Traceback|never retrieved|never awaited|destroyed but|"level": "(?:error|crit|alert|emerg)"|^[^{]'
)
"""What a log must not have; each of its own lines is a JSON object."""


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    seed: str
    messages: int
    statuses: dict[int, int]
    seen_by_instance: int
    growth: dict[str, int]
    """KiB of memory more than at the start, by process."""
    longest: tuple[float, str]
    """Seconds that a client's connection has lasted, and whose."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {times}" for status, times in sorted(self.statuses.items()))
        memory = ", ".join(f"{process} {kib / 1024:+.1f} MiB" for process, kib in self.growth.items())
        return (
            f"seed {self.seed}: {self.messages} messages; {self.seen_by_instance} requests at the instance; "
            f"answers {statuses}; memory: {memory}; "
            f"longest {self.longest[0]:.1f} s ({self.longest[1]}); problems: {self.problems or 'none'}"
        )


def fuzz(directory: Path, port: int, *, seed: str, seconds: float) -> Outcome:
    """Run for so long against a proxy of its own; `port` must be free on every loopback address."""
    with visa_api_thread() as api:
        api.user(_TOKEN, "fuzzer")
        for number, owner in ((_MUTATED, "fuzzer"), (_CANARY, "fuzzer"), (_FORBIDDEN, "somebody-else")):
            api.instance(number, owner=owner, ip=_HOSTS[number])
        (directory / "proxy.conf.json").write_text(json.dumps(_routes(port)))
        proxy = RunningProxy(directory, environment(directory, api.url, _SETTINGS))
        try:
            proxy.wait_until_it_listens()
            campaign = _Campaign(proxy, api, port, seed, seconds)
            outcome = uvloop.run(campaign.run())
            if proxy.stop() != 0:
                outcome.problems.append("it did not stop with status 0")
        finally:
            proxy.kill()
    if outcome.problems:
        recent = "\n".join(f"{who}: {message!r}" for who, message in campaign.log.recent)
        (directory / "recent.txt").write_text(recent)
    return outcome


def _routes(port: int) -> list[dict[str, Any]]:
    return [
        {"match": r"^/jupyter/(\d+).*", "type": "jupyter", "name": "Jupyter", "remotePort": port, "ws": True},
        {
            "match": r"^/visafs/(\d+).*",
            "type": "service",
            "name": "Visa Files",
            "remotePort": port,
            "pathRewrite": {r"^/visafs/\d+/": "/"},
            "setHeaders": {"x-auth-token": "{computeId}"},
            "maxBodyBytes": 100,
        },
        {
            "match": r"^/ws/print/(\d+).*",
            "type": "service",
            "name": "Visa Printing",
            "remotePort": port,
            "ws": True,
            "pathRewrite": {r"^/ws/print/\d+/": "/socket.io/"},
        },
    ]


class _Campaign:
    def __init__(self, proxy: RunningProxy, api: VisaApiServer, port: int, seed: str, seconds: float) -> None:
        self.log = Log()
        values = {"ID": str(_MUTATED), "OTHER": str(_FORBIDDEN), "TOKEN": _TOKEN}
        words = filled(WORDS, values)
        self._proxy = proxy
        self._api = api
        self._port = port
        self._seed = seed
        self._seconds = seconds
        self._clients = Clients(seed, proxy.port, Stock(filled(REQUESTS, values), words), self.log)
        self._instance = MutatedInstance(seed, Stock(filled(ANSWERS, values), words), self.log)
        self._canary = Canary(proxy.port, f"/jupyter/{_CANARY}/canary", _TOKEN)
        self._worker = proxy.worker_pid
        self._start = Start(proxy.states)
        self._round_ends = 0.0
        self._read = 0

    async def run(self) -> Outcome:
        async with AsyncExitStack() as stack:
            for number, serve in (
                (_MUTATED, self._instance.serve),
                (_CANARY, self._canary.serve),
                (_FORBIDDEN, Forbidden(self.log).serve),
            ):
                await stack.enter_async_context(await asyncio.start_server(serve, _HOSTS[number], self._port))
            await self._sing()
            ends = time.monotonic() + self._seconds
            while not self.log.problems and (now := time.monotonic()) < ends:
                self._round_ends = min(now + _ROUND_S, ends)
                await self._round()
        return Outcome(
            self._seed,
            self.log.messages,
            dict(self.log.statuses),
            self._instance.seen,
            self._start.growth(),
            self.log.longest,
            self.log.problems,
        )

    async def _round(self) -> None:
        """Have all talk, then look at what is left."""
        await asyncio.gather(
            *(self._clients.talk_until(self._is_over) for _ in range(_CLIENTS)),
            self._every(0.2, self._sing),
            self._every(0.5, self._watch),
        )
        if not self.log.problems:
            await self._settle()
            await self._sing()
            await self._watch()

    def _is_over(self) -> bool:
        return time.monotonic() > self._round_ends or bool(self.log.problems)

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while not self._is_over():
            await step()
            await asyncio.sleep(seconds)

    async def _sing(self) -> None:
        if not await self._canary.sings():
            self.log.problem("a plain request did not get its answer")

    async def _watch(self) -> None:
        """Look at the log, and whether the processes live."""
        with self._proxy.log.open("rb") as log:
            log.seek(self._read)
            lines = log.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # still being written
        self._read += sum(map(len, lines))
        for number, line in enumerate(lines):
            if _ALARMING.search(line):
                self.log.problem(b"".join(lines[number : number + 40]).decode(errors="replace"))
                break
        if not self._proxy.is_alive() or self._proxy.worker_pid != self._worker:
            self.log.problem("a process has died")
        self._api.requests.clear()  # nobody looks at them, and there are many

    async def _settle(self) -> None:
        """Wait until everything is given back."""
        try:
            await asyncio.to_thread(self._start.wait_until_back)
        except AssertionError as left:
            self.log.problem(str(left))
