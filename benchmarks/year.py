"""A year of a busy facility in the journal, and how long reports on it take.

    python -m benchmarks.year DIRECTORY [--url postgresql+asyncpg://...] [--sessions 1000000]

Sessions are made up by the database itself, by arithmetic: each run makes the same ones. What is there
already is measured as it is. Each report is run as an operator runs it: a process of its own.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from visa_jupyter_proxy.control.journal import Journal

_STEP: Final = 5000
_YEAR_S: Final = 365 * 86_400
_BEGINS: Final = 1_735_689_600
"""2025-01-01T00:00:00Z."""

_OWNER: Final = (
    "INSERT INTO owners (id, node, pid, beats, beat_at, started_at, stopped_at) "
    "VALUES ('benchmark', 'node', 1, 0, 0, 0, 0)"
)

# 2 000 users with one or two of 2 500 instances each; sessions of up to ten hours.
_SESSIONS: Final = """
INSERT INTO sessions (
  id, instance_id, kernel_id, session_id, user_id, opened_at, closed_at, reason, connections,
  bytes_up, bytes_down, messages_up, messages_down, first_interaction_at, last_interaction_at)
WITH RECURSIVE numbers(n) AS (
  SELECT CAST(:first AS bigint) UNION ALL SELECT n + 1 FROM numbers WHERE n < CAST(:last AS bigint))
SELECT
  '5f0c2a9be1d74c3880a61d2' || CAST(100000000 + n AS text),
  1000 + n * 7919 % 2000 + n % 5 / 4 * 500,
  'e3b0c442-98fc-4c14-9afb-' || CAST(100000000000 + n AS text),
  'a7ffc6f8-bf1e-4d66-b51a-' || CAST(100000000000 + n AS text),
  'f3a1c2d4-8c5b-4e0b-a2d7-' || CAST(100000000000 + n * 7919 % 2000 AS text),
  CAST(:begins AS double precision) + CAST(:apart AS double precision) * n,
  CAST(:begins AS double precision) + CAST(:apart AS double precision) * n + 60 + n * 104729 % 36000,
  'browser closed', 1 + n % 3, n % 100000, n % 3000000, n % 500, n % 9000,
  CAST(:begins AS double precision) + CAST(:apart AS double precision) * n + 1,
  CAST(:begins AS double precision) + CAST(:apart AS double precision) * n + 30
FROM numbers
"""
_CONNECTIONS: Final = """
INSERT INTO connections (id, session, owner, worker, tunnel, opened_at, left_at, ended_at, reason)
SELECT id, id, 'benchmark', 1, 1, opened_at, closed_at, closed_at, reason FROM sessions
WHERE id >= :from_id AND id <= :to_id
"""
_REPORTS: Final = """
INSERT INTO reports (id, session, owner, kind, state, attempts, created_at, settled_at)
SELECT {letter} || substr(id, 2), id, 'benchmark', '{kind}', 'delivered', 1, opened_at, closed_at
FROM sessions
WHERE id >= :from_id AND id <= :to_id
"""

REPORTS: Final = (
    "--open",
    "--since 2025-12-31",
    "--user f3a1c2d4-8c5b-4e0b-a2d7-100000000007",
    "--instance 1007",
    "--limit 1000",
    "summary --by day",
    "summary --by user",
    "summary --by instance",
    "summary --by user --since 2025-06-01 --until 2025-07-01",
)


async def fill(journal: Journal, sessions: int) -> None:
    """Make the sessions, in transactions that are not too long for the journal."""
    if not await journal.transact(_begin):
        return
    for first in range(0, sessions, _STEP):
        if journal.is_shared and first % (20 * _STEP) == _STEP:
            # As autovacuum does soon; nobody does so on SQLite.
            await journal.transact(lambda connection: _execute(connection, "ANALYZE"))
        last = min(first + _STEP, sessions) - 1
        await journal.transact(partial(_fill, first=first, last=last, apart=_YEAR_S / sessions))


def _execute(connection: Connection, statement: str, **values: object) -> None:
    connection.execute(text(statement), values)


def _begin(connection: Connection) -> bool:
    """Enter the owner; False when it is there, and so is the year."""
    if connection.scalar(text("SELECT 1 FROM owners WHERE id = 'benchmark'")):
        return False
    _execute(connection, _OWNER)
    return True


def _fill(connection: Connection, first: int, last: int, apart: float) -> None:
    _execute(connection, _SESSIONS, first=first, last=last, begins=float(_BEGINS), apart=apart)
    ids = {
        f"{end}_id": f"5f0c2a9be1d74c3880a61d2{100000000 + n}" for end, n in (("from", first), ("to", last))
    }
    _execute(connection, _CONNECTIONS, **ids)
    for letter, kind in (("'o'", "open"), ("'c'", "close")):
        _execute(connection, _REPORTS.format(letter=letter, kind=kind), **ids)


def measure(directory: Path, url: str | None) -> None:
    """Run each report three times and print the quickest: seconds from the command to its end."""
    settings = {"VISA_JUPYTER_PROXY_STORAGE_DIR": str(directory), "TZ": "Europe/Paris"}
    if url is not None:
        settings["VISA_JUPYTER_PROXY_STORAGE_URL"] = url
    for report in ("--help", *REPORTS):
        command = [sys.executable, "-m", "visa_jupyter_proxy", "sessions", *report.split()]
        taken = [_run(command, os.environ | settings) for _ in range(3)]
        wall, cpu, written = min(taken)
        sys.stdout.write(f"{wall:6.2f} s ({cpu:.2f} s of CPU)  sessions {report}  ({written} lines)\n")
        sys.stdout.flush()


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Give seconds, seconds of its CPU (PostgreSQL's is not its own), and lines."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    after, wall = os.times(), time.monotonic() - began
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, len(done.stdout.splitlines())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    chosen = parser.parse_args()

    async def make() -> None:
        journal = Journal(chosen.directory, chosen.url)
        try:
            await fill(journal, chosen.sessions)
        finally:
            await journal.close()

    asyncio.run(make())
    measure(chosen.directory, chosen.url)


if __name__ == "__main__":
    main()
