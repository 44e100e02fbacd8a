"""What the command lines of the benchmarks have in common: what they accept, what they say, how they end."""

import argparse
import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from benchmarks.processes import Failed

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong: behind the list of all options nobody would find it."""

    def error(self, message: str) -> NoReturn:
        """Say it, and exit."""
        self.exit(2, f"{self.prog}: {message}\n")


def count(text: str) -> int:
    """Read how many: a whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def duration(text: str) -> float:
    """Read how long: seconds, more than none, and finite."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return seconds


def unwritable(path: Path) -> str | None:
    """Say why a file cannot be written, before half an hour of work; it stays as it is. None when it can."""
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        return f"cannot write '{path}': {error.strerror}"
    if not existed:
        path.resolve().unlink()
    return None


def say(text: str) -> None:
    """Tell how far it is, apart from the tables."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(task: Callable[[], int]) -> NoReturn:
    """Do a task, and exit with the status that it returns, or with a line when it raises `Failed`.

    Ctrl-C, SIGTERM and SIGHUP end it by an exception, so that its blocks end what they have started.
    """
    for number in _ENDING:
        # What nohup(1) has had ignored stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)
    try:
        sys.exit(task())
    except Failed as error:
        sys.exit(f"benchmarks: {error}")


def _interrupted(number: int, _frame: FrameType | None) -> None:
    """End everything that was started; once is enough."""
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a terminal that has hung up takes no more words
        say("ending what was started ...")
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        sys.exit(128 + number)
    # Between two tasks' turns: in the middle of one it would be this task's error, too.
    loop.call_soon_threadsafe(sys.exit, 128 + number)
