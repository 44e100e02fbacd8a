"""A life of the journal, cut short at each call that changes its files; run with `boundaries.c` preloaded.

    python -m process.boundaries DIRECTORY KIND FIRST STRIDE

KIND is `kill`, or the name of the error with which a call fails. Prints one line of JSON: at how many calls
it was cut, how many calls there are, and what was wrong. Each life is a process of its own, forked here.
"""

import asyncio
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from support.sessions import ended, opened, progressed, rows
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable
from visa_jupyter_proxy.control.journal.records import Ended, Opened, Record, ReportState, Settled
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.control.ledger import Ledger

TABLES: Final = ("owners", "sessions", "connections", "reports")
_MOST: Final = 20
"""Attempts: one call fails, so the second succeeds, unless the first has broken something."""

_shim = ctypes.CDLL(None)


def transactions() -> list[list[Record]]:
    """Give the records of a few sessions, in the transactions in which they are written."""
    ledger = Ledger()
    begun = [record for tunnel in range(3) for record in ledger.opened(1, opened(tunnel)) or []]
    passed = [record for tunnel in range(3) if (record := ledger.progressed(1, progressed(tunnel)))]
    over = [end for tunnel in (0, 1) if (end := ledger.ended(1, ended(tunnel), 0.0))]
    reports = [
        record.report for record in begun + over if isinstance(record, Opened | Ended) and record.report
    ]
    told: list[Record] = [Settled(report, ReportState.DELIVERED, 1, 1003.0) for report in reports]
    return [begun, [*passed], [*over], told]


LIFE: Final = transactions()


async def live(directory: Path, acknowledged: int) -> None:
    """Write all, and tell a pipe of each transaction that was acknowledged; try again what has failed."""
    journal = Journal(directory)
    attempts = 0
    for records in (None, *LIFE):
        while True:
            try:
                if records is None:
                    await journal.register("me", "node", 1, 1000.0)
                else:
                    await journal.write("me", records)
                break
            except JournalUnavailable:
                attempts += 1
                if attempts == _MOST:
                    raise
        os.write(acknowledged, b"x")
    await journal.close()


def life(directory: Path, at: int, error: int) -> tuple[int, int, bool]:
    """Live one, cut at a call; the transactions acknowledged, its status, whether there was such a call."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 3
        try:
            os.close(reading)
            _shim.arm(ctypes.c_long(at), error)
            asyncio.run(live(directory, writing))
            status = 0 if _shim.reached() >= at else 2
        finally:
            os._exit(status)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    acknowledged = len(os.read(reading, 100))
    os.close(reading)
    return acknowledged, status, status != 2


def state(directory: Path) -> list[Any]:
    """Give what the journal holds; nothing when there are no tables."""
    file = directory / FILE
    if not file.exists() or not rows(file, "SELECT 1 FROM sqlite_master WHERE name = 'reports'"):
        return [[] for _ in TABLES]
    return [rows(file, f"SELECT * FROM {table} ORDER BY id") for table in TABLES]


def states(directory: Path) -> Iterator[list[Any]]:
    """Give what it holds before the first transaction, and after each."""
    yield state(directory)
    for number in range(len(LIFE) + 1):
        whole, LIFE[:] = LIFE[:], LIFE[:number]
        life(directory, 1 << 40, 0)
        LIFE[:] = whole
        yield state(directory)


def judge(
    directory: Path, expected: list[list[Any]], acknowledged: int, status: int, error: int
) -> str | None:
    """Say what is wrong after a life that was cut; then let it be lived again, to its end."""
    if error == 0 and status != -signal.SIGKILL:
        return f"ended with {status}"
    if error and (status != 0 or acknowledged != len(LIFE) + 1):
        return f"did not recover: status {status}, {acknowledged} transactions"
    if state(directory) not in expected[acknowledged : acknowledged + 2]:
        return f"{acknowledged} transactions were acknowledged, and something else is there"
    _, status, _ = life(directory, 1 << 40, 0)
    if status != 2 or state(directory) != expected[-1]:
        return f"cannot go on: status {status}"
    if [*directory.glob("*.damaged-*")]:
        return "a sound file was set aside"
    return None


def main(directory: Path, kind: str, first: int, stride: int) -> None:
    """Cut at every `stride`-th call, from the `first` on."""
    error = 0 if kind == "kill" else int(getattr(errno, kind))
    expected = list(states(directory / "expected"))
    wrong, cut = [], 0
    for at in count(first, stride):
        place = directory / "cut"
        acknowledged, status, is_reached = life(place, at, error)
        if not is_reached:
            break
        cut += 1
        if (found := judge(place, expected, acknowledged, status, error)) is not None:
            wrong.append(f"{kind} at call {at}: {found}")
        shutil.rmtree(place, ignore_errors=True)
    sys.stdout.write(json.dumps({"cut": cut, "calls": at, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
