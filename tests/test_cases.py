"""`make cases` cannot be fooled: what it calls passed has compared something, and passed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cases import ROWS, TOPICS, numbers

TESTS = Path(__file__).parent
TABLE = TESTS.parent.parent / "shared" / "cases.md"

CONFTEST = """
from support.cases import Cases

def pytest_configure(config):
    config.pluginmanager.register(Cases())
"""

MADE = '''
import pytest

def test_1_empty():
    """Says much."""

def test_2_asks_and_looks_at_nothing():
    str(len("answer"))

@pytest.mark.xfail(strict=False, reason="made")
def test_3_passes_although_it_should_not():
    assert True

@pytest.mark.xfail(reason="made")
def test_5_fails_as_expected():
    assert False

@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.skip(reason="made"))])
def test_6_one_of_two(n):
    assert n

@pytest.mark.skip(reason="made")
def test_8_skipped():
    assert True

def test_9_11_two_cases():
    assert True

def test_12_100_000_frames():
    assert True

def test_14_fails():
    assert False

class TestMethods:
    def _is_refused(self):
        _is_refused()

    def test_15_through_others(self):
        self._is_refused()

    def test_17_nothing_through_others(self):
        self._is_not_there if False else self._nothing()

    def _nothing(self):
        str()

def _is_refused():
    with pytest.raises(ValueError):
        int("x")

@pytest.fixture
def broken():
    raise ValueError

def test_18_never_begins(broken):
    assert True
'''


@pytest.mark.parametrize("options", [(), ("--numprocesses=2",)], ids=["one", "several"])
def test_what_counts(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Neither the empty, nor the skipped, nor what was expected to fail; and only numbers of cases."""
    place = tmp_path / "tests" / "wire"
    place.mkdir(parents=True)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (place / "test_made.py").write_text(MADE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    cases = run.stdout.partition(" cases ")[2]
    states = {int(number): state for number, state in re.findall(r"; (\d+) ([a-z ]+)", cases)}
    expected = {
        **dict.fromkeys((1, 2, 17), "empty"),
        **dict.fromkeys((3, 5, 8), "skipped"),
        6: "partly skipped",
        **dict.fromkeys((14, 18), "failed"),
        **dict.fromkeys((9, 11, 12, 15), None),
        100: "not covered",
    }
    assert expected == {number: states.get(number) for number in expected}
    assert "Request line and target: 4 of 11 passed" in cases  # 9, 11, 12 and 15
    assert 3 == cases.count("compares nothing: ")
    assert 1 == run.returncode


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wire/test_x.py::TestX::test_41_44_what[100-200]", [41, 44]),
        ("process/test_x.py::test_150_151_149_what", [150, 151, 149]),
        ("wire/test_x.py::test_212_100_000_frames", [212]),
        ("wire/test_x.py::test_212__100_frames", [212]),
        ("wire/test_x.py::test_212_100mb", [212]),
        ("wire/test_x.py::test_212", [212]),
        ("wire/test_x.py::test_012_what", []),
        ("wire/test_x.py::test_4_what", []),
        ("wire/test_x.py::test_what_41", []),
        ("support/test_x.py::test_41_what", []),
    ],
)
def test_the_numbers_of_a_name(name: str, expected: list[int]) -> None:
    """They lead it, and are rows of the table."""
    assert expected == numbers(f"tests/{name}")


def test_the_table() -> None:
    """Topics and numbers are those of the table of cases, where that is at hand."""
    if not TABLE.exists():
        pytest.skip("the table of cases is not here")
    written: dict[str, tuple[int, ...]] = {}
    for topic in TABLE.read_text().split("\n## ")[1:]:
        rows = tuple(int(number) for number in re.findall(r"^\| (\d+) \|", topic, re.MULTILINE))
        if rows:
            written[topic.partition("\n")[0]] = rows
    assert written == TOPICS
    assert len(ROWS) == sum(map(len, TOPICS.values()))
