"""What a proxy's processes have used: instructions by `perf stat`, CPU time by the kernel's clocks, memory.

Every process and thread counts, those that begin meanwhile too. CPU time is exact to the nanosecond: it is
each process's own clock (clock_getcpuclockid(3)), not the ticks of /proc/PID/stat. What perf cannot count
(virtual machines often have no counters, `perf_event_paranoid` above 1 hides the kernel's) is missing, not 0.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.processes import Child, Failed, child

_LITTLE_US: Final = 100_000.0

_USER: Final = "instructions:u"
_KERNEL: Final = "instructions:k"


@dataclass
class Usage:
    """What was used between begin and end; filled at the end."""

    cpu_us: float = 0.0
    user_instructions: float | None = None
    kernel_instructions: float | None = None


@cache
def countable() -> tuple[str, ...]:
    """Return the events that perf can count here: none, the user's, or the kernel's too."""
    if shutil.which("perf") is None:
        return ()
    found = []
    for event in (_USER, _KERNEL):
        command = ["perf", "stat", "-x,", "-e", event, "--", "true"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        if ran.returncode == 0 and counts(ran.stderr).get(event):
            found.append(event)
    return tuple(found)


def counts_everything() -> bool:
    """Whether perf counts the instructions of both programs and kernel here."""
    return countable() == (_USER, _KERNEL)


def counts(output: str) -> dict[str, float]:
    """Read what `perf stat -x,` has written; what it could not count is left out."""
    lines = re.findall(r"^(\d+(?:\.\d+)?),[^,]*,([^,]+),", output, re.MULTILINE)
    return {event: float(number) for number, event in lines}


@contextmanager
def usage(proxy: Child) -> Iterator[Usage]:
    """Measure what `proxy` uses while the block runs. Raises `Failed` when one of its processes ends."""
    used = Usage()
    with _perf(proxy.pids(), proxy.log.parent, used):
        before = {pid: cpu_us(pid) for pid in proxy.pids()}
        yield used
        after = {pid: cpu_us(pid) for pid in proxy.pids()}
    gone = before.keys() - after.keys()
    # nginx's cache loader ends by itself, a minute after the start and having done nothing.
    if any(before[pid] > _LITTLE_US for pid in gone):
        raise Failed(f"a process of {proxy.name} ended under the load: {gone}\n{proxy.log_tail()}")
    used.cpu_us = sum(after.values()) - sum(before.values())


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process and all its threads, those that have ended included."""
    # CPUCLOCK_SCHED of that process: include/linux/posix-timers.h.
    return time.clock_gettime_ns(~pid << 3 | 2) / 1000


@contextmanager
def _perf(pids: Iterable[int], folder: Path, used: Usage) -> Iterator[None]:
    """Count events of these processes while the block runs, if any can be counted."""
    if not countable():
        yield
        return
    output = folder / "perf.csv"
    output.unlink(missing_ok=True)
    events, processes = ",".join(countable()), ",".join(map(str, pids))
    # It begins disabled and says when it has begun: nothing of the load is missed, nothing before counted.
    orders, answers = folder / "perf.orders", folder / "perf.answers"
    for fifo in (orders, answers):
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
    control = f"--control=fifo:{orders},{answers}"
    command: list[str | Path] = [
        "perf",
        "stat",
        "-x,",
        "-e",
        events,
        "-D",
        "-1",
        control,
        "-o",
        output,
        "-p",
        processes,
    ]
    with child("perf", command, folder) as perf:
        to_perf, from_perf = os.open(orders, os.O_RDWR), os.open(answers, os.O_RDWR)
        try:
            _tell(to_perf, from_perf, b"enable\n")
            yield
            _tell(to_perf, from_perf, b"disable\n")
        finally:
            os.close(to_perf)
            os.close(from_perf)
        # perf writes what it has counted when it is interrupted.
        perf.interrupt()
    found = counts(output.read_text())
    used.user_instructions, used.kernel_instructions = found.get(_USER), found.get(_KERNEL)


def _tell(to_perf: int, from_perf: int, order: bytes) -> None:
    os.write(to_perf, order)
    answer = os.read(from_perf, 100)
    if not answer.startswith(b"ack"):
        raise Failed(f"perf answered {answer!r} to {order!r}")


def memory(pid: int) -> int:
    """Return the bytes of memory of a process: PSS, in which shared pages count for their share."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise Failed(f"no PSS of process {pid}")
    return int(found[1]) * 1024


def memory_of(proxy: Child) -> int:
    """Return that of all processes of a proxy."""
    return sum(map(memory, proxy.pids()))
