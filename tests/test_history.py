"""The last hour in points of ten seconds, for the board's charts."""

import pytest

from test_sums import AT_REST
from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.control.admin.history import POINTS, STEP_S, History, quantile
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.mailbox import Count, Counters, Observed
from visa_jupyter_proxy.metrics import BUCKETS


def _ten_seconds(history: History, at: float) -> None:
    for second in range(STEP_S):
        history.tick(at + second)


def test_a_point_is_what_has_happened_since_the_last() -> None:
    """Rates, not totals; without requests there is no latency."""
    sums = Sums()
    history = History(sums)
    _ten_seconds(history, 1000.0)
    buckets = [0] * BUCKETS
    buckets[1], buckets[4] = 36, 4
    sums.add(
        1,
        Counters(
            counts=(
                Count(metrics.REQUESTS, ("Jupyter", "GET", "200"), 30),
                Count(metrics.REQUESTS, ("", "GET", "404"), 5),
                Count(metrics.REQUESTS, ("Jupyter", "GET", "5xx"), 4),
                Count(metrics.REQUESTS, ("Jupyter", "GET", "502"), 1),
            ),
            observed=(Observed(metrics.REQUEST_SECONDS, ("Jupyter",), tuple(buckets), 1.0),),
            state=AT_REST,
        ),
    )
    _ten_seconds(history, 1010.0)
    _ten_seconds(history, 1020.0)
    first, second, third = history.points
    assert (1009.0, 0.0, 0.0, None, None, 0) == first
    assert (1019.0, 4.0, 0.5) == second[:3]
    assert (0.001833, 0.0175) == (second.median, second.slow)
    assert (1029.0, 0.0, 0.0, None, None, 0) == third


def test_an_hour_is_kept() -> None:
    """And no more."""
    history = History(Sums())
    for number in range(POINTS + 5):
        _ten_seconds(history, 10.0 * number)
    assert (POINTS, 59.0) == (len(history.points), history.points[0].at)


@pytest.mark.parametrize(
    ("buckets", "part", "expected"),
    [
        ([0] * BUCKETS, 0.5, None),
        ([10, *[0] * (BUCKETS - 1)], 0.5, 0.0005),
        ([0, 10, *[0] * (BUCKETS - 2)], 0.5, 0.00175),
        ([*[0] * (BUCKETS - 1), 1], 0.5, 60.0),
    ],
    ids=["nothing", "in the first bucket", "in the second", "beyond all of them"],
)
def test_quantiles(buckets: list[int], part: float, expected: float | None) -> None:
    """As Prometheus estimates them; what is beyond the last bound counts as that."""
    assert expected == quantile(buckets, part)
