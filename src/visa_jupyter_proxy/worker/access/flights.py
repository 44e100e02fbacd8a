"""One at a time for each key: who asks the same meanwhile gets the same answer (single flight)."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class Flights[K: Hashable, T]:
    """What is under way, each in a task of its own: it comes to its end although its first asker has gone."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def begin(self, key: K, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Begin, unless it is under way; return the task, which is for all."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    async def share(self, key: K, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the answer, and raise what it raises. Who is cancelled ends it for nobody else."""
        return await asyncio.shield(self.begin(key, make))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: K, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # seen: whoever asked may have gone
