"""A client under our command: started, told how much to do, ended."""

import json
import selectors
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from benchmarks.processes import Child, Failed, child
from benchmarks.world import World, python_environment

_PATIENCE_S: Final = 300.0


@dataclass(frozen=True)
class Result:
    """What a client got, complete and correct."""

    done: int
    seconds: float
    latency_us: dict[str, float]


class Driver:
    """A running `benchmarks.load`; the first answer, after its warm-up, has been read."""

    def __init__(self, running: Child) -> None:
        self.child = running

    @classmethod
    @contextmanager
    def running(
        cls, world: World, work: str, port: int, connections: int, together: int | None = None
    ) -> Iterator[Self]:
        """Run a client (`load`) until the block is left. Raises `Failed` when its warm-up fails."""
        numbers = [port, connections] if together is None else [port, connections, together]
        command = [sys.executable, "-m", "benchmarks.load", work, *map(str, numbers)]
        with child(
            "load",
            command,
            world.folder,
            cpus=world.load_cpus,
            environment=python_environment(),
            pipes=True,
        ) as running:
            driver = cls(running)
            driver.answer()
            yield driver

    def order(self, text: str) -> Result:
        """Have work done, as `load` understands it, and wait. Raises `Failed` when it went wrong."""
        self.child.stdin.write(text.encode() + b"\n")
        self.child.stdin.flush()
        answer = self.answer()
        return Result(answer["done"], answer["seconds"], answer["latency_us"])

    def answer(self) -> dict[str, Any]:
        """Wait for the client's next line."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            if not selector.select(_PATIENCE_S):
                raise Failed(f"the client said nothing for {_PATIENCE_S:.0f} s")
        line = self.child.stdout.readline()
        if not line:
            raise Failed(f"the client has ended:\n{self.child.log_tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer
