"""What control makes of the counts of its workers."""

import msgspec

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.control.admin import sums
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.mailbox import Count, Counters, Observed
from visa_jupyter_proxy.metrics import BUCKETS
from visa_jupyter_proxy.state import WorkerState

AT_REST = WorkerState(**dict.fromkeys(WorkerState.__struct_fields__, 0))
_GET = ("Jupyter", "GET", "200")


def _counters(count: int = 0, tunnels: int = 0, instances: tuple[tuple[int, int], ...] = ()) -> Counters:
    buckets = (count, *[0] * (BUCKETS - 1))
    return Counters(
        counts=(Count(metrics.REQUESTS, _GET, count),),
        observed=(Observed(metrics.REQUEST_SECONDS, ("Jupyter",), buckets, count * 0.5),),
        state=msgspec.structs.replace(AT_REST, tunnels=tunnels),
        instance_tunnels=instances,
    )


def test_counts_add_up_and_what_is_under_way_is_replaced() -> None:
    """Two workers, the first of which tells twice."""
    added = Sums()
    added.add(1, _counters(3, tunnels=5, instances=((7, 5),)))
    added.add(2, _counters(4, tunnels=1, instances=((7, 1),)))
    added.add(1, _counters(2, tunnels=4, instances=((7, 3), (8, 1))))
    assert 9 == added.counts[metrics.REQUESTS, _GET]
    seconds = added.seconds[metrics.REQUEST_SECONDS, ("Jupyter",)]
    assert (9, 4.5) == (seconds.count, seconds.sum)
    assert 5 == added.under_way("tunnels")
    assert {7: 4, 8: 1} == added.instance_tunnels()


def test_a_worker_that_ends_takes_no_count_along() -> None:
    """But what it had under way."""
    added = Sums()
    added.add(1, _counters(3, tunnels=5, instances=((7, 5),)))
    added.add(2, _counters(4, tunnels=1))
    added.lost(1)
    assert (7, 1, {}) == (
        added.counts[metrics.REQUESTS, _GET],
        added.under_way("tunnels"),
        added.instance_tunnels(),
    )
    added.add(3, _counters(1))
    assert 8 == added.counts[metrics.REQUESTS, _GET]


def test_there_are_so_many_instances_and_no_more() -> None:
    """The one that came first goes, with all that was counted for it."""
    added = Sums()
    for instance in map(str, range(sums.MOST_INSTANCES + 1)):
        counts = (
            Count(metrics.INSTANCE_BYTES, (instance, "up"), 9),
            Count(metrics.INSTANCE_REQUESTS, (instance,), 1),
        )
        added.add(1, Counters(counts=counts, observed=(), state=AT_REST))
    kept = {labels[0] for _, labels in added.counts}
    assert {str(number) for number in range(1, sums.MOST_INSTANCES + 1)} == kept
