"""Results: what was measured, written, read, shown as tables, and compared with what is committed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

OURS: Final = "ours"

INSTRUCTIONS: Final = "instructions"
CPU_TIME: Final = "cpu_us"

ALLOWED: Final = {INSTRUCTIONS: 1.10, CPU_TIME: 1.35}
"""By how much our ratio to nginx may grow: instructions repeat, CPU time depends on what else runs."""


@dataclass
class Row:
    """One scenario: for each proxy its rounds, or why there are none."""

    title: str
    unit: str
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, proxy: str, sample: Mapping[str, float]) -> None:
        """Add what a round gave."""
        sample = dict(sample)
        if "user_instructions" in sample and "kernel_instructions" in sample:
            sample[INSTRUCTIONS] = sample["user_instructions"] + sample["kernel_instructions"]
        self.samples.setdefault(proxy, []).append(sample)

    def value(self, proxy: str, figure: str) -> float | None:
        """Return the median of the rounds; None after an error, and for what was not measured."""
        if proxy in self.errors:
            return None
        values = [sample[figure] for sample in self.samples.get(proxy, []) if figure in sample]
        return statistics.median(values) if values else None

    def ratio(self, proxy: str, figure: str, to: str) -> float | None:
        """Return how many times what `to` takes: the median of the rounds, each compared by itself."""
        if {proxy, to} & self.errors.keys():
            return None
        pairs = zip(self.samples.get(proxy, []), self.samples.get(to, []), strict=False)
        ratios = [
            one[figure] / other[figure] for one, other in pairs if one.get(figure) and other.get(figure)
        ]
        return statistics.median(ratios) if ratios else None


@dataclass
class Results:
    """All rows of a run, and where and when it was."""

    about: dict[str, Any]
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_json` has written."""
        return cls(dict(value["about"]), {name: Row(**row) for name, row in value["rows"].items()})

    def as_json(self) -> dict[str, Any]:
        """Return everything, every round included."""
        return {"about": self.about, "rows": {name: vars(row) for name, row in self.rows.items()}}

    def proxies(self) -> list[str]:
        """Return the names of all proxies, in the order in which they ran."""
        return list(self.about["versions"])

    def to_nginx(self, scenario: str, figure: str) -> float | None:
        """Return how many times nginx's is ours; None when that was not measured."""
        row = self.rows.get(scenario)
        return None if row is None else row.ratio(OURS, figure, "nginx")

    @property
    def cost(self) -> str:
        """The figure to steer by: instructions where all were counted, else CPU time."""
        samples = [one for row in self.rows.values() for many in row.samples.values() for one in many]
        costs = [one for one in samples if CPU_TIME in one]
        return INSTRUCTIONS if costs and all(INSTRUCTIONS in one for one in costs) else CPU_TIME


@dataclass(frozen=True)
class Figure:
    """One kind of number, and how it is written."""

    name: str
    title: str
    scale: float = 1.0

    def text(self, value: float | None) -> str:
        """Write a value with three digits that mean something."""
        if value is None:
            return ""
        scaled = value / self.scale
        return f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"


TABLES: Final[dict[str, tuple[Figure, ...]]] = {
    "Cost of a unit of work": (
        Figure(INSTRUCTIONS, "instructions, thousands", 1e3),
        Figure("user_instructions", "of them user", 1e3),
        Figure("kernel_instructions", "of them kernel", 1e3),
        Figure(CPU_TIME, "CPU, us"),
    ),
    "Latency under this load": (Figure("p50_us", "p50, us"), Figure("p99_us", "p99, us")),
    "Memory, start, questions to VISA": (
        Figure("bytes", "PSS, KB", 1e3),
        Figure("worker_bytes", "worker's PSS, KB", 1e3),
        Figure("control_bytes", "control's PSS, KB", 1e3),
        Figure("start_s", "start to first answer, s"),
        Figure("api_calls", "questions to the VISA API"),
    ),
}


def tables(results: Results, titles: Mapping[str, str]) -> str:
    """Write everything as Markdown; in parentheses, how many times ours."""
    proxies = results.proxies()
    parts = []
    for title, figures in TABLES.items():
        lines = [line for row in results.rows.values() for line in _lines(row, figures, proxies)]
        if lines:
            # Each figure is the median of the rounds, and so is each ratio: of the rounds' own ratios.
            head = ["", "", *(titles.get(name, name) for name in proxies)]
            parts.append(f"## {title}\n\n{_markdown(head, lines)}")
    return "\n\n".join(parts) + "\n"


def _lines(row: Row, figures: Sequence[Figure], proxies: Sequence[str]) -> list[list[str]]:
    lines: list[list[str]] = []
    for figure in figures:
        if any(row.value(name, figure.name) is not None for name in proxies):
            cells = [_cell(row, figure, name) for name in proxies]
            lines.append(["" if lines else f"{row.title} ({row.unit})", figure.title, *cells])
    return lines


def _cell(row: Row, figure: Figure, proxy: str) -> str:
    if proxy in row.errors:
        return "error"
    text, ratio = figure.text(row.value(proxy, figure.name)), row.ratio(proxy, figure.name, OURS)
    return text if ratio is None or proxy == OURS else f"{text} ({ratio:.2f})"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        # Names to the left, numbers to the right.
        both = (str.ljust, str.ljust, *(str.rjust for _ in cells[2:]))
        padded = (to_side(cell, width) for to_side, cell, width in zip(both, cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (width - 1) if n < 2 else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, lines)])


@dataclass(frozen=True)
class Verdict:
    """What became of a check."""

    lines: list[str]
    is_worse: bool


def unlike(now: Results, committed: Results) -> list[str]:
    """Say in what the machine differs from that of the committed results: ratios depend on it, too."""

    def named(about: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "CPU": about["cpu"],
            "system": about["system"],
            "Python": about["python"],
            "nginx": about["versions"]["nginx"],
        }

    here, there = named(now.about), named(committed.about)
    return [f"{what}: {here[what]}, and {there[what]} there" for what in here if here[what] != there[what]]


def compared(now: Results, committed: Results, names: Sequence[str], figure: str) -> Verdict:
    """Compare our ratios to nginx with the committed ones; what cannot be compared is worse, too."""
    lines, worse = [], False
    for name in names:
        was, is_ = (results.to_nginx(name, figure) for results in (committed, now))
        if is_ is None or was is None:
            errors = now.rows[name].errors if name in now.rows else {}
            lines.append(f"{name}: cannot be compared: {errors or 'not in the committed results'}")
            worse = True
            continue
        bad = is_ > was * ALLOWED[figure]
        worse |= bad
        verdict = "WORSE" if bad else "ok"
        limits = f"committed {was:.2f}, allowed {was * ALLOWED[figure]:.2f}"
        lines.append(f"{name}: {is_:.2f} times nginx, {limits}: {verdict}")
    return Verdict(lines, worse)
