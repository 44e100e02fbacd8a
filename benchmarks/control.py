"""What a kernel channel that is opened and closed costs in control: all of it, until the journal has it.

    python -m benchmarks.control [--rounds 9] [--channels 1000]

Sixteen browsers open and close channels as fast as they can; each comes back with the same ids, so these are
sixteen sessions. After each round the journal is waited for. Plain WebSockets, of which control knows
nothing, show what the worker's part is. CPU time counts, user and system, so other work on the machine
changes little; the least of the rounds is what it costs.
"""

import argparse
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.counters import cpu_us
from benchmarks.driver import Driver
from benchmarks.processes import wait
from benchmarks.proxies import Running, ours
from benchmarks.world import World, running_world

_BROWSERS: Final = 16


def _left(world: World) -> int:
    """Count the connections that the journal knows to be over."""
    query = "SELECT count(left_at) FROM connections"
    with closing(sqlite3.connect(world.folder / "data" / "journal.sqlite3")) as journal:
        return int(journal.execute(query).fetchone()[0])


def _round(
    world: World, proxy: Running, load: Driver, channels: int, known: int | None
) -> tuple[float, float]:
    """Give the CPU time for one channel: of control, and of the worker; us."""
    control, *workers = proxy.child.pids()
    before = cpu_us(control), sum(map(cpu_us, workers))
    load.order(f"count {channels}")
    if known is not None:
        # The last one of each browser is over when it opens the next.
        wait(lambda: _left(world) >= known + channels - _BROWSERS, "the journal")
    after = cpu_us(control), sum(map(cpu_us, workers))
    return (after[0] - before[0]) / channels, (after[1] - before[1]) / channels


def measure(world: World, proxy: Running, rounds: int, channels: int) -> None:
    """Print what each round has cost, the cheapest first."""
    for work, name in (("open", "a plain WebSocket"), ("openkernel", "a kernel channel")):
        with Driver.running(world, work, proxy.port, _BROWSERS) as load:
            load.order(f"count {channels}")
            found = []
            for _ in range(rounds):
                known = _left(world) if work == "openkernel" else None
                found.append(_round(world, proxy, load, channels, known))
        for part, costs in zip(("control", "worker"), zip(*found, strict=True), strict=True):
            shown = " ".join(f"{cost:.0f}" for cost in sorted(costs))
            sys.stdout.write(f"{name}, us of {part}'s CPU: {shown}\n")
        sys.stdout.flush()


def main() -> None:
    """Run it in a world of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--channels", type=int, default=1000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="control-"))
    try:
        with running_world(folder, proxy_cpu=None, load_cpus=None) as world, ours(world) as proxy:
            measure(world, proxy, arguments.rounds, arguments.channels)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
