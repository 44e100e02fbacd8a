"""Which cases of the wire there are, and what became of each in a run: `make cases`.

A case is covered by every test in `tests/wire`, `tests/process` and `tests/fuzz` whose name begins with
its number: `test_56_pipelined_requests...`, `test_62_63_...` for two of them. Where a word that begins with
a digit follows, two underscores end the numbers: `test_162__100_000_frames`. `docs/behaviour.md` says what
the cases are.

What compares nothing shows nothing, and what is skipped or expected to fail has not passed.
"""

import re
from collections import defaultdict
from typing import Final

import pytest

from support.comparing import compares

TOPICS: Final[dict[str, tuple[int, ...]]] = {
    "Request line and target": (
        1,
        2,
        3,
        5,
        6,
        8,
        9,
        11,
        12,
        14,
        15,
    ),
    "Host and header syntax": (
        17,
        18,
        20,
        21,
        23,
        24,
        26,
        27,
        29,
        30,
        32,
        33,
    ),
    "Body framing and request smuggling": (
        35,
        36,
        38,
        39,
        41,
        42,
        44,
        45,
        47,
        48,
        50,
        51,
        53,
        54,
        56,
        57,
        59,
        60,
        62,
        63,
    ),
    "Expect and 1xx": (
        65,
        66,
        68,
        69,
    ),
    "Limits and slow peers": (
        71,
        72,
        74,
        75,
        77,
        78,
        80,
        81,
    ),
    "Headers rewritten by the proxy": (
        83,
        84,
        86,
        87,
        89,
        90,
        92,
        93,
        95,
        96,
    ),
    "Path and routing": (
        97,
        98,
        99,
        100,
        101,
        102,
        103,
        104,
        105,
        106,
        107,
        108,
        110,
        111,
    ),
    "Credentials": (
        113,
        114,
        116,
        117,
        119,
        120,
        121,
        122,
        123,
        124,
        125,
        126,
        128,
        129,
    ),
    "Authorisation cache and API": (
        131,
        132,
        133,
        134,
        135,
        136,
        137,
        138,
        140,
        141,
    ),
    "WebSocket handshake and Upgrade": (
        143,
        144,
        146,
        147,
        149,
        150,
        151,
        152,
        153,
        155,
        156,
        158,
        159,
        160,
        161,
        162,
    ),
    "Tunnel and streaming behaviour": (
        164,
        165,
        166,
        167,
        168,
        170,
        171,
        173,
    ),
    "Response side": (
        174,
        176,
        177,
        178,
        179,
        180,
        182,
        183,
        185,
        186,
    ),
    "Instance connections: pool, retry, timeouts, abort": (
        188,
        189,
        190,
        191,
        192,
        194,
        195,
        197,
    ),
    "Instance address (SSRF)": (
        198,
        199,
        200,
        201,
    ),
    "Errors, logs, robustness under fuzz": (
        203,
        204,
        206,
        207,
    ),
    "Notebook sessions: reports and store": (
        208,
        209,
        210,
        212,
        213,
        215,
        216,
        217,
        218,
        219,
        221,
        222,
        224,
        225,
    ),
    "Lifecycle and operations": (
        226,
        227,
        228,
        230,
        231,
        233,
        234,
        235,
    ),
    "Added after review": (
        236,
        237,
        238,
        239,
        240,
        241,
        242,
        243,
        244,
        245,
        246,
    ),
}

LATER: Final[dict[int, str]] = {}
"""Cases of what is not built yet."""

ROWS: Final = frozenset(number for cases in TOPICS.values() for number in cases)
_WRITTEN: Final = {str(number): number for number in ROWS}

_NUMBERS: Final = re.compile(
    r"tests/(?:wire|process|fuzz)/[^:]*::(?:\w+::)*test_(\d+(?:_\d+)*)(?![0-9A-Za-z])"
)

_EMPTY: Final = ("compares", "nothing")
"""A property of a test's report."""


def numbers(node_id: str) -> list[int]:
    """Give the numbers of the cases that a test covers.

    Where one of several is no case, it is another kind of number: `test_162_100_000_frames` is about 162.
    """
    found = _NUMBERS.match(node_id)
    written = found[1].split("_") if found is not None else []
    if any(text not in _WRITTEN for text in written):
        del written[1:]
    return [_WRITTEN[text] for text in written if text in _WRITTEN]


class Cases:
    """Collects what became of each case, and prints the table."""

    def __init__(self) -> None:
        self._passed: defaultdict[int, int] = defaultdict(int)
        self._skipped: defaultdict[int, int] = defaultdict(int)
        self._failed: defaultdict[int, list[str]] = defaultdict(list)
        self._empty: dict[str, list[int]] = {}

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note a test that compares nothing: where its report will say so, which may be another process."""
        if (
            numbers(item.nodeid)
            and isinstance(item, pytest.Function)
            and not compares(item.function, item.cls)
        ):
            item.user_properties.append(_EMPTY)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        covered = numbers(report.nodeid)
        if _EMPTY in map(tuple, report.user_properties):
            self._empty[report.nodeid] = covered
        for number in covered:
            if report.failed:
                self._failed[number].append(report.nodeid)
            elif report.skipped or hasattr(report, "wasxfail"):
                self._skipped[number] += 1
            elif report.when == "call":
                self._passed[number] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        terminalreporter.section("cases")
        counts: defaultdict[str, int] = defaultdict(int)
        for topic, cases in TOPICS.items():
            states = {number: self._state(number) for number in cases}
            for state in states.values():
                counts[state] += 1
            words = (f"{number} {state}" for number, state in states.items() if state != "passed")
            passed = sum(state == "passed" for state in states.values())
            terminalreporter.line(
                f"{topic}: {passed} of {len(cases)} passed" + "".join(f"; {w}" for w in words)
            )
        for node_id in self._empty:
            terminalreporter.line(f"compares nothing: {node_id}")
        terminalreporter.line(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail unless every case that can be covered is, and passes: all of it that can be run here."""
        states = {self._state(number) for number in ROWS}
        if states - {"passed", "partly skipped", "later"} and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _state(self, number: int) -> str:
        if self._failed[number]:
            return "failed"
        if any(number in covered for covered in self._empty.values()):
            return "empty"
        if self._passed[number]:
            return "partly skipped" if self._skipped[number] else "passed"
        if self._skipped[number]:
            return "skipped"
        return "later" if number in LATER else "not covered"
