"""Our user instructions for a unit of work, and the functions that take them; also on a busy machine.

    python -m benchmarks.callgrind small            # a small answer; WORKS has the others
    python -m benchmarks.callgrind ws --units 500 --connections 8 --top 40
    make bench-instructions WORK=small

The proxy is started as always, but its worker runs under valgrind (`apt-get install valgrind`), fifty
times slower. After a warm-up, the work is done N and then 2 N times, and the difference of both counts is
divided by N: what does not depend on the work cancels out. Repeats within 1 %; with a few hundred units,
within 3. The system calls' own instructions are not in it, and Python functions cannot be told apart: they
are the interpreter's C functions.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks import command
from benchmarks.driver import Driver
from benchmarks.processes import Child, Failed, child, free_port, program, wait
from benchmarks.proxies import our_environment
from benchmarks.world import World, running_world

WORKS: Final = ("small", "stream", "connection", "ws", "ws64k", "kernel", "open", "openkernel")
"""Names of scenarios (`scenarios`): `stream` is the 64 KiB answer."""

_SLOW_S: Final = 300.0

# The worker is started with `sys.executable`: for control, that is a script that puts valgrind before it.
_LAUNCH: Final = (
    "import sys; sys.executable = sys.argv.pop(); from visa_jupyter_proxy.cli import main; main()"
)

_SCRIPT: Final = """#!/bin/sh
exec {valgrind} --tool=callgrind --callgrind-out-file={folder}/callgrind.out --compress-strings=no \\
  --instr-atstart=no {python} "$@"
"""


@contextmanager
def proxy_under_callgrind(world: World) -> Iterator[tuple[Child, int]]:
    """Run the proxy with its worker under valgrind; gives the proxy and its port."""
    valgrind = program("valgrind")
    if valgrind is None:
        raise Failed("valgrind is not installed: apt-get install valgrind")
    script = world.folder / "python-under-callgrind"
    script.write_text(
        _SCRIPT.format(valgrind=valgrind, folder=world.folder, python=shlex.quote(sys.executable))
    )
    script.chmod(0o755)
    port = free_port()
    serve = [sys.executable, "-P", "-c", _LAUNCH, "serve", str(script)]
    with child("ours", serve, world.folder, environment=our_environment(world, port)) as proxy:

        def listening() -> bool:
            proxy.check()
            return '"listening"' in proxy.log.read_text()

        wait(listening, "the proxy", _SLOW_S)
        yield proxy, port


def worker_of(proxy: Child) -> int:
    """Return the process id of the one worker."""
    threads = Path(f"/proc/{proxy.pid}/task").iterdir()
    (worker,) = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    return int(worker)


def control(pid: int, order: str) -> None:
    """Have a running callgrind do something."""
    subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True)


def dump(folder: Path, pid: int, name: str) -> Path:
    """Have the counts since the last dump written, and give the file."""
    before = set(folder.glob("callgrind.out.*"))
    control(pid, f"--dump={name}")
    new: set[Path] = set()

    def written() -> bool:
        new.update(path for path in folder.glob("callgrind.out.*") if path not in before and total(path))
        return bool(new)

    wait(written, "callgrind to write its counts", _SLOW_S)
    return new.pop()


def total(path: Path) -> int:
    """Return the instructions that a dump counts; 0 when it is not complete yet."""
    found = re.findall(r"^(?:totals|summary): (\d+)", path.read_text(errors="replace"), re.MULTILINE)
    return int(found[-1]) if found else 0


def by_function(path: Path) -> dict[str, int]:
    """Return the instructions of each function of a dump, without those of what it calls."""
    output = subprocess.run(
        ["callgrind_annotate", "--threshold=100", "--show-percs=no", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    counts: dict[str, int] = {}
    for number, name in re.findall(
        r"^ *([\d,]+) {2,}\S*?:(\S.*?)(?:'\d+)?(?: \[.*\])?$", output, re.MULTILINE
    ):
        counts[name] = counts.get(name, 0) + int(number.replace(",", ""))
    return counts


def measure(work: str, units: int, connections: int, folder: Path) -> tuple[float, dict[str, float]]:
    """Return instructions for a unit of work: all, and for each function."""
    with ExitStack() as stack:
        world = stack.enter_context(running_world(folder, proxy_cpu=None, load_cpus=None))
        proxy, port = stack.enter_context(proxy_under_callgrind(world))
        load = stack.enter_context(Driver.running(world, work, port, connections))
        # Only now, for control would not wait so long for its worker to start.
        control(worker_of(proxy), "--instr=on")
        load.order(f"count {max(units, 300)}")
        dump(folder, worker_of(proxy), "warm-up")
        dumps = []
        for times in (1, 2):
            load.order(f"count {times * units}")
            dumps.append(dump(folder, worker_of(proxy), f"{times}"))
        one, two = (by_function(path) for path in dumps)
        functions = {name: (count - one.get(name, 0)) / units for name, count in two.items()}
        return (total(dumps[1]) - total(dumps[0])) / units, functions


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="visa-bench-") as folder:
        try:
            whole, functions = measure(options.work, options.units, options.connections, Path(folder))
        except Failed as error:
            log = Path(folder) / "ours.log"
            ours = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise Failed(f"{error}\n{ours}") from None
    sys.stdout.write(f"{options.work}: {whole:,.0f} user instructions for one, in the worker\n")
    for name, count in sorted(functions.items(), key=lambda one: -one[1])[: options.top]:
        sys.stdout.write(f"{count:12,.0f}  {100 * count / whole:5.1f} %  {name[:100]}\n")
    return 0


def main() -> None:
    """Do what the command line says."""
    parser = command.Parser(
        prog="python -m benchmarks.callgrind", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("work", choices=WORKS, help="whose unit is counted")
    parser.add_argument(
        "--units", type=command.count, default=2000, help="how often it is done in the first run: 2000"
    )
    parser.add_argument("--connections", type=command.count, default=8, help="on which it is done at once: 8")
    parser.add_argument("--top", type=command.count, default=25, help="how many functions to print: 25")
    options = parser.parse_args()
    command.run(lambda: run(options))


if __name__ == "__main__":
    main()
