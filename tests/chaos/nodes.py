"""Proxies that are killed, and started again as a service manager does it."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.proxy import RunningProxy, environment

_PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Killed:
    """A control process that was killed, at this Unix time."""

    node: int
    at: float


class Node:
    """One machine: its proxy, or none while that is dead."""

    def __init__(self, number: int, directory: Path, api_url: str, settings: Mapping[str, str]) -> None:
        self.number = number
        self.directory = directory
        self.killed: list[Killed] = []
        self.kills = 0
        """Kills that hit something."""
        self.proxy: RunningProxy | None = None
        self._environment = environment(directory, api_url, settings)
        self._ready = asyncio.Event()
        self._groups: set[int] = set()

    @property
    def port(self) -> int | None:
        """Where it listens; None while it is dead."""
        return self.proxy.port if self.proxy is not None else None

    async def start(self) -> None:
        """Start the proxy, and wait until it listens."""
        self._sweep()
        log = self.directory / "proxy.log"
        if log.exists():
            log.rename(log.with_suffix(f".{len(self.killed)}.log"))
        proxy = RunningProxy(self.directory, self._environment)
        self._groups.add(proxy.pid)
        await asyncio.to_thread(proxy.wait_until_it_listens)
        self.proxy = proxy
        self._ready.set()

    async def kill(self, how: str) -> None:
        """Kill one worker, all workers, control alone, or all, as soon as there is one to be killed."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._ready.wait()
            assert self.proxy is not None
            while not (workers := self.proxy.worker_pids):  # noqa: ASYNC110 -- control starts them
                await asyncio.sleep(0.01)
        self.kills += 1
        if how in ("worker", "workers"):
            for pid in workers[: 1 if how == "worker" else None]:
                _kill(pid)
            return
        proxy, self.proxy = self.proxy, None
        self._ready.clear()
        self.killed.append(Killed(self.number, time.time()))
        if how == "control":
            _kill(proxy.pid)
        else:
            os.killpg(proxy.pid, signal.SIGKILL)
        await asyncio.to_thread(proxy.exit_status)

    async def control_state(self) -> dict[str, Any]:
        """Ask control for its state."""
        assert self.proxy is not None
        return (await asyncio.to_thread(self.proxy.states))[0]

    def end(self) -> None:
        """Leave nothing behind."""
        if self.proxy is not None:
            self.proxy.kill()
        self._sweep()

    def complaints(self) -> list[str]:
        """Give what must not have been logged in any of its lives."""
        found = []
        for log in sorted(self.directory.glob("proxy*.log")):
            lines = log.read_text(errors="replace").splitlines()
            bad = [line for line in lines if "Traceback" in line or "exception" in _parsed(line)]
            found += [f"{log.name}: {line[:300]}" for line in bad]
        return found

    def _sweep(self) -> None:
        """End what a dead control process has left, as a service manager would."""
        running = self.proxy.pid if self.proxy is not None else None
        for group in [*self._groups]:
            if group != running:
                with suppress(ProcessLookupError):  # gone already
                    os.killpg(group, signal.SIGKILL)
                self._groups.discard(group)


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:  # cut off by a kill
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was dying already
        os.kill(pid, signal.SIGKILL)
