"""What processes use: as the kernel counts it, and as a proxy itself says on SIGUSR1.

start = Start(lambda: states(pid, log))   # nothing is under way yet
...
start.wait_until_back()                   # all that was opened since has been given back
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CPUCLOCK_SCHED: Final = 2
"""The kind of clock that counts nanoseconds on a CPU (Linux, posix-timers.h)."""

_ANSWER_S: Final = 60.0

_PATIENCE_S: Final = 60.0
"""Longer than the longest deadline of what is left behind: 30 s, for a client that has sent FIN."""

_UNDER_WAY: Final = (
    "clients",
    "downstream",
    "upstream_busy",
    "tunnels",
    "pipes_busy",
    "notebook_connections",
    "records_waiting",
    "upkeep",
)
"""Counts of `state.WorkerState` and `state.ControlState` that are 0 when nothing is under way."""

_DESCRIPTORS: Final = {
    "downstream": 1,
    "upstream_busy": 1,
    "upstream_idle": 1,
    "tunnels": 2,
    "pipes_busy": 2,
    "pipes_idle": 2,
    "api_connections": 1,
}
"""Descriptors of each thing that is counted; some are kept on purpose, for the next request."""

ALLOWED_GROWTH_KIB: Final = 16 * 1024
"""What an allocator keeps, and what is loaded when it is first needed."""

type State = dict[str, Any]


def descriptors(pid: int) -> int:
    """Count the open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    """Give the bytes of memory that a process has at the moment (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def cpu_seconds(pid: int) -> float:
    """Give the time that a process has spent on a CPU, to the nanosecond, by its own clock."""
    # What clock_getcpuclockid(3) does, which Python has for threads only.
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def states(pid: int, log: Path) -> list[State]:
    """Ask a proxy, by the id of its control process, for its state: control's, then that of each worker."""
    begin = log.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        found = _states(log, begin)
        workers = [state for state in found if state["process"] == "worker"]
        for control in (state for state in found if state["process"] == "control"):
            if len(workers) >= control["workers"]:
                return [control, *sorted(workers, key=lambda worker: int(worker["pid"]))]
        time.sleep(0.005)
    raise AssertionError(f"no state of every process in the log within {_ANSWER_S:.0f} s: {found}")


def _states(log: Path, begin: int) -> list[State]:
    with log.open("rb") as lines:
        lines.seek(begin)
        whole = lines.read().split(b"\n")[:-1]  # the last one may still be being written
    found = [json.loads(line) for line in whole if b'"event": "state"' in line]
    return [state for state in found if state["event"] == "state"]


class Start:
    """What a proxy uses before anything is under way, and whether it is back there."""

    def __init__(
        self, ask: Callable[[], list[State]], *, allowed_growth_kib: int = ALLOWED_GROWTH_KIB
    ) -> None:
        """Take note of the start, once the journal is open and tidied up. `ask` is what `states` gives."""
        self._ask = ask
        self._allowed_growth_kib = allowed_growth_kib
        deadline = time.monotonic() + _ANSWER_S
        while (begin := ask())[0]["journal"] != "written" or begin[0]["upkeep"]:
            assert time.monotonic() < deadline, f"the journal is not at rest: {begin[0]}"
            time.sleep(0.01)
        self.states = begin

    def left(self) -> list[str]:
        """Say what there is now that was not there at the start; nothing when all has been given back."""
        now = self._ask()
        if (was := _processes(self.states)) != (is_now := _processes(now)):
            return [f"the processes were {was} and are {is_now}"]
        found = []
        for before, after in zip(self.states, now, strict=True):
            found += [f"{after['process']}: {what}" for what in self._differences(before, after)]
        return found

    def wait_until_back(self) -> None:
        """Wait until all that ends by itself has ended; fail with what has not."""
        deadline = time.monotonic() + _PATIENCE_S
        while left := self.left():
            assert time.monotonic() < deadline, f"not given back: {'; '.join(left)}"
            time.sleep(0.05)

    def growth(self) -> dict[str, int]:
        """Give the KiB of memory that each process has now more than at the start, by its kind and id."""
        return {
            f"{after['process']} {after['pid']}": after["memory_kib"] - before["memory_kib"]
            for before, after in zip(self.states, self._ask(), strict=True)
        }

    def _differences(self, before: State, after: State) -> list[str]:
        found = [f"{name} {after[name]}" for name in _UNDER_WAY if after.get(name)]
        if after["tasks"] != before["tasks"]:
            found.append(f"tasks {before['tasks']} -> {after['tasks']}")
        if (unexplained := _unexplained(after)) != _unexplained(before):
            found.append(f"descriptors that nothing explains {_unexplained(before)} -> {unexplained}")
        if (growth := after["memory_kib"] - before["memory_kib"]) > self._allowed_growth_kib:
            found.append(f"memory {growth:+} KiB")
        return found


def _processes(found: list[State]) -> str:
    return ", ".join(f"{state['process']} {state['pid']}" for state in found)


def _unexplained(state: State) -> int:
    """Count the descriptors that are no connection: as many as at the start, whatever is under way."""
    explained: int = sum(state.get(name, 0) * each for name, each in _DESCRIPTORS.items())
    return int(state["descriptors"]) - explained
