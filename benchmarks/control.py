"""What a kernel channel that is opened and closed costs in control: all of it, until the journal has it.

    python -m benchmarks.control [--rounds 9] [--channels 1000]

Sixteen browsers open and close channels as fast as they can; each comes back with the same ids, so these are
sixteen sessions. After each round the journal is waited for. Plain WebSockets, of which control knows
nothing, show what the worker's part is. CPU time counts, user and system, so other work on the machine
changes little; the least of the rounds is what it costs.
"""

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks import command
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


def run(rounds: int, channels: int) -> int:
    """Run it in a world of its own, and return the exit status."""
    with (
        tempfile.TemporaryDirectory(prefix="visa-bench-") as folder,
        running_world(Path(folder), proxy_cpu=None, load_cpus=None) as world,
        ours(world) as proxy,
    ):
        measure(world, proxy, rounds, channels)
    return 0


def main() -> None:
    """Do what the command line says."""
    parser = command.Parser(
        prog="python -m benchmarks.control", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=command.count, default=9, help="how often it is measured: 9")
    parser.add_argument(
        "--channels", type=command.count, default=1000, help="how many are opened in a round: 1000"
    )
    options = parser.parse_args()
    command.run(lambda: run(options.rounds, options.channels))


if __name__ == "__main__":
    main()
