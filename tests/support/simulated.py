"""An event loop whose clock is simulated: whoever sleeps is woken at once, and time has passed.

run(main())    # a coroutine in which an hour takes as long as what happens in it
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import override


class _Selector(selectors.SelectSelector):
    """Instead of waiting for time to pass, has it pass."""

    now = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for somebody else"
            self.now += max(timeout, 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    @override
    def time(self) -> float:
        return self._simulated.now


def run[T](main: Coroutine[None, None, T]) -> T:
    """Run `main` to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
