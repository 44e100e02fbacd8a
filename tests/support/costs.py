"""What work costs, counted: the same on every machine, and however busy it is."""

import sqlite3
import sys
from collections.abc import Awaitable, Callable
from types import CodeType

from sqlalchemy import Connection

from visa_jupyter_proxy.control.journal import Journal

_EVERY = sys.monitoring.events.INSTRUCTION


def instructions(work: Callable[[], object]) -> int:
    """Count what Python's interpreter executes for `work`; what is done in C counts as one."""
    counted = 0

    def count(_code: CodeType, _offset: int) -> None:
        nonlocal counted
        counted += 1

    tool = sys.monitoring.PROFILER_ID
    sys.monitoring.use_tool_id(tool, "costs")
    sys.monitoring.register_callback(tool, _EVERY, count)
    sys.monitoring.set_events(tool, _EVERY)
    try:
        work()
    finally:
        sys.monitoring.set_events(tool, 0)
        sys.monitoring.free_tool_id(tool)
    return counted


async def sqlite_steps(journal: Journal, *work: Awaitable[object]) -> int:
    """Count what SQLite's machine executes for `work` on a journal that is written."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    def watch(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(count, 1)

    await journal.transact(watch)
    for one in work:
        await one
    return counted
