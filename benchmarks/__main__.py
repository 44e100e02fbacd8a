"""Measure: `python -m benchmarks --help`, `make bench`, `make bench-check`."""

import argparse
import datetime as dt
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import chart, command, counters, proxies
from benchmarks.command import say
from benchmarks.processes import Failed
from benchmarks.report import CPU_TIME, INSTRUCTIONS, Results, Row, compared, tables, unlike
from benchmarks.scenarios import CHECKED, SCENARIOS, WARM_UP_S, Scenario, Stage
from benchmarks.world import World, running_world

LATEST: Final = Path(__file__).with_name("results") / "latest.json"
CHART: Final = LATEST.with_suffix(".svg")
_BENCH_S: Final = 4.0
_CHECK_S: Final = 2.0

_LATEST_ROUNDS: Final = 3
"""What is shown is the median: of three rounds, one may have been disturbed."""
_LATEST_S: Final = _CHECK_S
"""A check works so long, and what it compares with shall not have been measured worse."""


def cpus() -> tuple[str | None, str | None]:
    """Choose a CPU for the proxy, and the others for everything else; none when there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return (str(first), ",".join(map(str, others))) if others else (None, None)


def measured(
    world: World, scenarios: Sequence[Scenario], names: Sequence[str], options: argparse.Namespace
) -> Results:
    """Run every scenario: in rounds, and in a round all proxies in turn."""
    results = Results(about(options, names))
    for scenario in scenarios:
        row = results.rows[scenario.name] = Row(scenario.title, scenario.unit)
        for number in range(1, options.rounds + 1):
            for name in names:
                say(f"{scenario.title}: round {number}, {name}")
                _measure(world, scenario, name, row, options)
    return results


def _measure(world: World, scenario: Scenario, name: str, row: Row, options: argparse.Namespace) -> None:
    """Start a proxy, measure it, end it. What goes wrong stays with this proxy and this scenario."""
    if name in row.errors:
        return
    try:
        with proxies.PROXIES[name](world) as proxy:
            row.add(name, scenario.measure(Stage(world, proxy, options.seconds, options.warm_up)))
    except Failed as error:
        say(f"  error: {error}")
        row.errors[name] = " ".join(str(error).split())[:300]


def about(options: argparse.Namespace, names: Sequence[str]) -> dict[str, object]:
    """Say where and when it is, and what is compared."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    said = proxies.versions()
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": model[0].partition(": ")[2] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "versions": {name: said[name] for name in names},
        "rounds": options.rounds,
        "warm_up": options.warm_up,
        "seconds": options.seconds,
        "counted": list(counters.countable()),
    }


def _system() -> str:
    """Say whose builds are measured: a distribution's Python is a quarter faster than one that pyenv made."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, {Path(sys.executable).resolve()}"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read these arguments, or those of the command line."""
    parser = command.Parser(prog="python -m benchmarks", description="Measure what proxying costs.")
    known = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=known, metavar="SCENARIO", help=f"of {' '.join(known)}")
    every = list(proxies.PROXIES)
    parser.add_argument(
        "--proxies", nargs="+", choices=every, default=every, metavar="PROXY", help=f"of {' '.join(every)}"
    )
    parser.add_argument(
        "--rounds", type=command.count, default=3, help="how often each proxy does each work: 3"
    )
    parser.add_argument(
        "--seconds",
        type=command.duration,
        help=f"for work that could go on for ever: {_BENCH_S:g}, for a check {_CHECK_S:g}",
    )
    parser.add_argument(
        "--warm-up",
        type=command.duration,
        default=WARM_UP_S,
        metavar="SECONDS",
        help=f"before: {WARM_UP_S:g}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write the results to this file (JSON), not those of a whole run to {LATEST.name}",
    )
    task = parser.add_mutually_exclusive_group()
    task.add_argument(
        "--check", action="store_true", help="compare our ratio to nginx with what is committed"
    )
    task.add_argument(
        "--comparable", action="store_true", help="only tell whether a check would compare instructions"
    )
    options = parser.parse_args(arguments)
    # Not by its type: the emulated machine is told our file, too, and then its own, which counts.
    if options.output is not None:
        if options.output.resolve() in (LATEST.resolve(), CHART.resolve()):
            parser.error(f"argument --output: a whole run replaces {options.output.name} without it")
        if reason := command.unwritable(options.output):
            parser.error(f"argument --output: {reason}")
    if options.seconds is None:
        options.seconds = _CHECK_S if options.check else _BENCH_S
    return options


def comparable(committed: Results) -> str:
    """Return the figure in which this machine can be compared with the committed results."""
    return INSTRUCTIONS if counters.counts_everything() and committed.cost == INSTRUCTIONS else CPU_TIME


def check(options: argparse.Namespace) -> int:
    """Run the first scenarios against nginx, and return the exit status."""
    committed = Results.from_json(json.loads(LATEST.read_text()))
    figure = comparable(committed)
    if options.comparable:
        if figure != INSTRUCTIONS:
            say("bench-check: skipped: perf cannot count here, or could not for the committed results")
        return int(figure != INSTRUCTIONS)
    if absent := [missing for name in ("nginx", "wrk") if (missing := proxies.missing(name))]:
        say(f"bench-check: cannot run without {' and '.join(absent)}")
        return 2
    chosen = [scenario for scenario in SCENARIOS if scenario.name in (options.only or CHECKED)]
    if unknown := [one.name for one in chosen if committed.to_nginx(one.name, figure) is None]:
        say(f"bench-check: {LATEST.name} has no cost of {' and '.join(unknown)} to compare with")
        return 2
    now = run(chosen, ["ours", "nginx"], options)
    verdict = compared(now, committed, [scenario.name for scenario in chosen], figure)
    said = "instructions" if figure == INSTRUCTIONS else "CPU time, which needs a quiet machine"
    say(f"our cost as a multiple of nginx's, in {said}:")
    say("\n".join(verdict.lines))
    if other := unlike(now, committed):
        say("The committed figures were measured elsewhere, where ratios are others:")
        say("\n".join(other))
    return int(verdict.is_worse)


def run(scenarios: Sequence[Scenario], names: Sequence[str], options: argparse.Namespace) -> Results:
    """Start the world, and measure in it."""
    proxy_cpu, load_cpus = cpus()
    with (
        tempfile.TemporaryDirectory(prefix="visa-bench-") as folder,
        running_world(Path(folder), proxy_cpu=proxy_cpu, load_cpus=load_cpus) as world,
    ):
        return measured(world, scenarios, names, options)


def lacking(results: Results) -> list[str]:
    """Say what keeps results from taking the place of the committed ones; nothing, when they may."""
    all_names = [*(scenario.name for scenario in SCENARIOS), *proxies.PROXIES]
    absent = [name for name in all_names if name not in {*results.rows, *results.proxies()}]
    failed = [name for name, row in results.rows.items() if row.errors]
    rounds, seconds = results.about["rounds"], results.about["seconds"]
    reasons = {
        f"without {', '.join(absent)}": bool(absent),
        f"with errors in {', '.join(failed)}": bool(failed),
        f"of {rounds} rounds, not {_LATEST_ROUNDS}": rounds < _LATEST_ROUNDS,
        f"of {seconds:g} s, not {_LATEST_S:g}": seconds < _LATEST_S,
    }
    return [reason for reason, holds in reasons.items() if holds]


def bench(options: argparse.Namespace) -> int:
    """Run what was asked for, print the tables, and write the results."""
    names = []
    for name in options.proxies:
        if program := proxies.missing(name):
            say(f"left out: {proxies.TITLES[name]}: {program} is not installed")
        else:
            names.append(name)
    chosen = [one for one in SCENARIOS if options.only is None or one.name in options.only]
    results = run(chosen, names, options)
    if not counters.counts_everything():
        # With the tables, and so not from within an emulated machine, whose tables nobody sees.
        counted = "only the user's" if counters.countable() else "no"
        sys.stdout.write(f"perf counts {counted} instructions here: CPU time is the figure to look at\n\n")
    sys.stdout.write(tables(results, proxies.TITLES))
    if options.output is not None:
        write(results, options.output)
    elif reasons := lacking(results):
        said = "; ".join(reasons)
        say(f"not written, for {LATEST.name} is of whole runs (--output FILE keeps any): this was one {said}")
    else:
        write(results, LATEST)
        CHART.write_text(chart.drawn(results, proxies.TITLES))
        say(f"written: {CHART}")
    return int(any(row.errors for row in results.rows.values()))


def write(results: Results, output: Path) -> None:
    """Write results to a file, and say so."""
    output.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    say(f"written: {output}")


def main() -> None:
    """Do what the command line says."""
    options = parsed()
    command.run(lambda: check(options) if options.check or options.comparable else bench(options))


if __name__ == "__main__":
    main()
