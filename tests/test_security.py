"""Every promise of `docs/security.md` that names a case is shown by a test of that number."""

import re
from pathlib import Path

from support.cases import numbers

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "security.md").read_text()

_CITED = re.compile(r"\[(\d+(?:,\s+\d+)*)\]")
_TEST = re.compile(r"def (test_\w+)")


def test_every_case_that_is_cited_has_a_test() -> None:
    """A promise whose test has gone, or was never written, is none."""
    cited = {int(number) for group in _CITED.findall(TEXT) for number in re.split(r",\s+", group)}
    files = [path for part in ("wire", "process") for path in (TESTS / part).glob("test_*.py")]
    shown = {
        number
        for path in files
        for test in _TEST.findall(path.read_text())
        for number in numbers(f"tests/{path.parent.name}/{path.name}::{test}")
    }
    assert len(cited) > 50
    assert set() == cited - shown
