"""What a command says to a person who waits: one line on the terminal, kept up to date, and gone at the end.

Nothing in the first second, and nothing where standard error is no terminal: programs read no such thing.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

_EVERY_S: Final = 1.0
"""After a second people wonder whether anything happens."""

_ERASED: Final = "\r\x1b[K"
"""ECMA-48, 8.3.41: from the beginning of the line to its end."""


class Progress:
    """How far it is. Whoever works counts in `done`; a thread of its own tells."""

    def __init__(self, what: str, unit: str, terminal: TextIO) -> None:
        """Begin; `what` is going on, in words, and `unit` is of what is counted."""
        self.done = 0
        self._what = what
        self._unit = unit
        self._terminal = terminal
        self._began = time.monotonic()
        self._is_shown = False
        self._is_over = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._watch: Callable[[], int] | None = None

    def watch(self, look: Callable[[], int]) -> None:
        """Have `look` say how much is done, where whoever works cannot."""
        self._watch = look

    def add(self, count: int) -> None:
        """Count so many more as done."""
        self.done += count

    def counting[T](self, rows: Iterable[T]) -> Iterator[T]:
        """Pass rows on, and count them."""
        for row in rows:
            self.done += 1
            yield row

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Write something else to the terminal meanwhile."""
        with self._one_at_a_time:
            self._erase()
            yield

    def end(self) -> None:
        """Say nothing any more, whatever goes on."""
        self._is_over.set()
        with self.aside():
            pass

    def tell(self) -> None:
        """Tell on until the end."""
        while not self._is_over.wait(_EVERY_S):
            with self._one_at_a_time:
                if not self._is_over.is_set():
                    self._show()

    def _show(self) -> None:
        seconds = time.monotonic() - self._began
        done = self.done if self._watch is None else self._watch()
        counted = f"{done:,} {self._unit}, " if done else ""
        line = f"{self._what} ... {counted}{seconds:.0f} s"
        # A line that the terminal breaks could not be erased.
        width = shutil.get_terminal_size().columns - 1
        self._terminal.write(f"{_ERASED}{line[:width]}")
        self._terminal.flush()
        self._is_shown = True

    def _erase(self) -> None:
        if self._is_shown:
            self._terminal.write(_ERASED)
            self._terminal.flush()
            self._is_shown = False


@contextmanager
def told(what: str, unit: str = "") -> Iterator[Progress]:
    """Tell of what is going on inside, when it takes longer than a second."""
    progress = Progress(what, unit, sys.stderr)
    teller = threading.Thread(target=progress.tell, daemon=True, name="progress")
    is_seen = sys.stderr.isatty()
    if is_seen:
        teller.start()
    try:
        yield progress
    finally:
        progress.end()
        if is_seen:
            teller.join()  # nothing is written behind our back from now on
