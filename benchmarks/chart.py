"""The README's picture: what the others cost for each scenario, as a multiple of ours, logarithmically.

Written by hand, for a page of SVG is all it takes; it follows the reader's light or dark theme.
"""

import html
import math
from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.report import INSTRUCTIONS, OURS, Results, Row

_COLOURS: Final = {  # of Okabe and Ito, which colour-blind readers can tell apart
    "ours": "#d55e00",
    "nginx": "#009e73",
    "haproxy": "#0072b2",
    "chp": "#cc79a7",
}

_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.line { stroke: #d1d9e0 }
.ours { stroke: #d55e00; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .line { stroke: #3d444d }
}
"""

_WIDTH: Final = 800
_LEFT: Final = 190
_RIGHT: Final = 40
_TOP: Final = 74
_STEP: Final = 26


def drawn(results: Results, titles: Mapping[str, str]) -> str:
    """Draw all rows in which anyone has a cost; who failed is named, ours too."""
    figure, names = results.cost, results.proxies()
    rows = [row for row in results.rows.values() if any(row.value(name, figure) for name in names)]
    ratios = [
        {name: ratio for name in names if (ratio := row.ratio(name, figure, OURS)) is not None}
        for row in rows
    ]
    reach = max((abs(math.log2(ratio)) for one in ratios for ratio in one.values()), default=0.0)
    scale = _Scale(max(2, math.ceil(reach)))
    bottom = _TOP + len(rows) * _STEP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 56}" role="img">',
        f"<style>{_STYLE}</style>",
        *_head(results, titles),
        *scale.drawn(bottom),
    ]
    for number, (row, those) in enumerate(zip(rows, ratios, strict=True)):
        parts += _row(row, those, scale, _TOP + number * _STEP + _STEP / 2)
    parts += [_text(10, bottom + 46, _footnote(results), "small"), "</svg>"]
    return "\n".join(parts) + "\n"


class _Scale:
    """From a ratio to a place: powers of two, as far to the left as to the right."""

    def __init__(self, powers: int) -> None:
        self._powers = powers

    def x(self, ratio: float) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (math.log2(ratio) + self._powers) / (2 * self._powers)

    def drawn(self, bottom: float) -> Iterator[str]:
        for power in range(-self._powers, self._powers + 1):
            x = self.x(2.0**power)
            kind = "line" if power else "ours"
            yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            label = f"{2**power}" if power >= 0 else f"1/{2**-power}"
            yield _text(x, bottom + 18, label, "small", "middle")


def _head(results: Results, titles: Mapping[str, str]) -> Iterator[str]:
    what = "Instructions" if results.cost == INSTRUCTIONS else "CPU time"
    yield _text(10, 22, f"{what} for a unit of work, as a multiple of ours (left is cheaper)")
    x = 16.0
    for name in results.proxies():
        title = titles.get(name, name)
        yield _dot(x, 46, name)
        yield _text(x + 10, 50, title)
        # The width of a text is not known here; 7 pixels a letter are enough in any font.
        x += 34 + 7 * len(title)


def _row(row: Row, ratios: Mapping[str, float], scale: _Scale, y: float) -> Iterator[str]:
    yield _text(10, y + 4, row.title)
    yield f'<line class="line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
    for name, ratio in ratios.items():
        yield _dot(scale.x(ratio), y, name, f"{name}: {ratio:.2f}")
    if row.errors:
        yield _text(_WIDTH - _RIGHT, y - 3, f"error: {', '.join(row.errors)}", "small", "end")


def _footnote(results: Results) -> str:
    about = results.about
    system = about["system"].partition(",")[0]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['date'][:10]}, {about['cpu']}, {system}, Python {about['python']}; {versions}"


def _dot(x: float, y: float, name: str, tip: str = "") -> str:
    title = f"<title>{html.escape(tip)}</title>" if tip else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{_COLOURS.get(name, "gray")}">{title}</circle>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of_kind}>{html.escape(text)}</text>'
