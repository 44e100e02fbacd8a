"""The last hour, in points of ten seconds: for the board's charts, so that it needs no Prometheus."""

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.metrics import BOUNDS, BUCKETS

STEP_S: Final = 10
POINTS: Final = 3600 // STEP_S


class Point(NamedTuple):
    """Ten seconds. Rates are per second; what is None was not there."""

    at: float
    """Unix time of the end."""
    requests: float
    errors: float
    """Answers from 500 on."""
    median: float | None
    """Seconds of a request; None without any."""
    slow: float | None
    """Only one request in twenty took longer."""
    tunnels: int
    """At the end."""


class _Totals(NamedTuple):
    requests: int
    errors: int
    buckets: tuple[int, ...]


class History:
    """The points; `tick` once a second."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._ticks = itertools.count(1)
        self._before = _totals(sums)
        self.points: deque[Point] = deque(maxlen=POINTS)

    def tick(self, at: float) -> None:
        """Take note of a second that is over; `at` is Unix time."""
        if next(self._ticks) % STEP_S:
            return
        now, before = _totals(self._sums), self._before
        self._before = now
        buckets = [more - less for more, less in zip(now.buckets, before.buckets, strict=True)]
        self.points.append(
            Point(
                at=round(at, 3),
                requests=(now.requests - before.requests) / STEP_S,
                errors=(now.errors - before.errors) / STEP_S,
                median=quantile(buckets, 0.5),
                slow=quantile(buckets, 0.95),
                tunnels=self._sums.under_way("tunnels"),
            )
        )


def quantile(buckets: Sequence[int], part: float) -> float | None:
    """Estimate what a part of all stays below, as Prometheus does: evenly spread inside a bucket."""
    wanted = part * sum(buckets)
    if not wanted:
        return None
    below = 0
    for lower, upper, count in zip((0.0, *BOUNDS), BOUNDS, buckets, strict=False):
        if below + count >= wanted:
            return round(lower + (upper - lower) * (wanted - below) / count, 6)
        below += count
    return BOUNDS[-1]


def _totals(sums: Sums) -> _Totals:
    requests = errors = 0
    for (metric, labels), count in sums.counts.items():
        if metric == metrics.REQUESTS:
            requests += count
            errors += count if labels[2].startswith("5") else 0
    buckets = [0] * BUCKETS
    for (metric, _), seconds in sums.seconds.items():
        if metric == metrics.REQUEST_SECONDS:
            buckets = [one + more for one, more in zip(buckets, seconds.buckets, strict=True)]
    return _Totals(requests, errors, tuple(buckets))
