"""Records for tests of the journal, and a journal to write them to."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.sessions import TOKEN, key
from support.storage import Storage
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.records import (
    Ended,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
)
from visa_jupyter_proxy.mailbox import Traffic


def an_opened(number: int, session: int | None = None) -> Opened:
    """Give the record of connection `number` opening, by default of the session of that number."""
    notebook = key(number if session is None else session)
    return Opened(
        connection=f"c{number}",
        worker=1,
        tunnel=number,
        key=notebook,
        user="anna",
        token=TOKEN,
        at=1000.0,
        session=f"s{number}",
        report=f"open{number}",
        first=True,
    )


def an_ended(number: int, session: int | None = None) -> Ended:
    """Give the record of its end."""
    return Ended(
        connection=f"c{number}",
        key=key(number if session is None else session),
        at=1001.0,
        reason="browser closed",
        traffic=Traffic(bytes_up=11, bytes_down=22, messages_up=3, messages_down=4),
        report=f"close{number}",
        last=True,
    )


def a_settled(number: int) -> Settled:
    """Give the record of its opening having been told."""
    return Settled(f"open{number}", ReportState.DELIVERED, 1, 1002.0)


def a_progress(number: int, size: int) -> Progressed:
    """Give the record of what has passed through connection `number`, in proportion to `size`."""
    traffic = Traffic(
        bytes_up=size,
        bytes_down=2 * size,
        messages_up=2 * size,
        messages_down=3 * size,
        first_interaction_at=1000.0 + (10 if size > 5 else 5),
        last_interaction_at=2000.0 + size,
    )
    return Progressed(f"c{number}", traffic)


def a_life(chance: random.Random) -> list[Record]:
    """Make records of 60 connections of 8 sessions, in an order that is possible."""
    records: list[Record] = []
    running: list[tuple[int, int]] = []
    for number in range(60):
        session = chance.randrange(8)
        records.append(an_opened(number, session))
        running.append((number, session))
        while running and chance.random() < 0.5:
            ending = running.pop(chance.randrange(len(running)))
            records += [a_progress(ending[0], number)] * chance.randrange(3)
            records.append(an_ended(*ending))
            if chance.random() < 0.3:
                records.append(Settled(f"open{ending[0]}", ReportState.DELIVERED, 2, 1002.0))
    return records


@asynccontextmanager
async def journal_in(place: Storage | Path, *owners: str) -> AsyncIterator[Journal]:
    """Open a journal with these owners, and close it."""
    journal = (Storage(place) if isinstance(place, Path) else place).journal()
    try:
        for owner in owners:
            await journal.register(owner, "node", 1, 1000.0)
        yield journal
    finally:
        await journal.close()
