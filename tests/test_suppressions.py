"""Whatever is let pass, a finding of a tool or an exception, has its reason beside it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_NEEDS_A_REASON = re.compile(
    r"# noqa(?!: [A-Z0-9, ]+ -- \S)"
    r"|# type: ignore(?!\[[a-z-]+\]  # \w)"
    r"|# (?:pragma|mypy|ruff): "
    r"|\bsuppress\([A-Z].*\):$"
    r"|\bexcept(?: (?:Base)?Exception\b.*)?:$"
    r"|pytest\.(?:skip|xfail)\(\)|mark\.(?:skip|xfail)(?!\w*\(.*reason=)"
)


def _without_reason(text: str) -> Iterator[str]:
    before = ""
    for line in text.splitlines():
        if _NEEDS_A_REASON.search(line) and not before.startswith("#"):
            yield line.strip()
        before = line.strip()


@pytest.mark.parametrize("part", ["src", "tests"])
def test_every_suppression_says_why(part: str) -> None:
    """On its line, or in a comment on the line before."""
    files = [file for file in (ROOT / part).rglob("*.py") if file != Path(__file__)]
    assert len(files) > 50
    bare = [f"{file.name}: {line}" for file in files for line in _without_reason(file.read_text())]
    assert [] == bare
