"""Processes that are started from another thread: real ones, and what becomes of them."""

import asyncio
import os
import sys
import time

import pytest

from visa_jupyter_proxy.control.spawner import Process, Spawner


async def _started(text: str, *descriptors: int) -> Process:
    return await Spawner().start([sys.executable, "-c", text], descriptors)


def test_the_exit_status_is_waited_for() -> None:
    """And until somebody has taken it, the process counts as being there."""

    async def run() -> None:
        process = await _started("raise SystemExit(7)")
        assert process.is_there
        assert (7, False) == (await process.wait(), process.is_there)

    asyncio.run(run())


def test_it_inherits_the_descriptors_that_are_named() -> None:
    """And no input."""

    async def run() -> None:
        read, write = os.pipe()
        text = f"import os, sys; os.write({write}, b'here' + sys.stdin.buffer.read())"
        assert 0 == await (await _started(text, write)).wait()
        os.close(write)
        with os.fdopen(read, "rb") as file:
            assert b"here" == file.read()

    asyncio.run(run())


def test_it_can_be_killed() -> None:
    """Also a second time, when it has ended already."""

    async def run() -> None:
        process = await _started("import time; time.sleep(600)")
        process.kill()
        assert -9 == await process.wait()
        process.kill()

    asyncio.run(run())


def test_what_cannot_be_started() -> None:
    """Is the caller's to say."""
    with pytest.raises(FileNotFoundError):
        asyncio.run(Spawner().start(["/nowhere/python"], []))


def test_it_may_outlive_the_loop() -> None:
    """Nobody waits for it any more, and nothing is raised in its thread."""

    async def run() -> Process:
        return await _started("import time; time.sleep(600)")

    process = asyncio.run(run())
    deadline = time.monotonic() + 60
    while process.is_there:
        assert time.monotonic() < deadline
        process.kill()
        time.sleep(0.001)
