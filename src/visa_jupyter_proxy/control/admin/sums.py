"""What all workers have counted, added up. A worker that ends takes what it has under way along, no count."""

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Final

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.mailbox import Counters
from visa_jupyter_proxy.metrics import BOUNDS, BUCKETS
from visa_jupyter_proxy.state import WorkerState

MOST_INSTANCES: Final = 10_000
"""Instances that are counted for themselves, with `METRICS_PER_INSTANCE`; the one that came first goes."""

type Key = tuple[str, tuple[str, ...]]
"""A name of `metrics`, and the values of its labels."""


class Seconds:
    """A histogram."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    def add(self, seconds: float) -> None:
        """Add one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Sums:
    """Counts since the start of control, and what each worker has under way."""

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.seconds: defaultdict[Key, Seconds] = defaultdict(Seconds)
        self.states: dict[int, WorkerState] = {}
        """By the number of the worker process, as of at most a second ago."""
        self._instance_tunnels: dict[int, dict[int, int]] = {}
        self._instances: dict[str, None] = {}
        """Those that are counted, in the order of their coming."""

    def add(self, worker: int, counters: Counters) -> None:
        """Add what a worker has counted."""
        for count in counters.counts:
            self.counts[count.metric, count.labels] += count.count
            if count.metric == metrics.INSTANCE_REQUESTS:
                self._keep(count.labels[0])
        for observed in counters.observed:
            seconds = self.seconds[observed.metric, observed.labels]
            pairs = zip(seconds.buckets, observed.buckets, strict=True)
            seconds.buckets = [one + more for one, more in pairs]
            seconds.sum += observed.seconds
        self.states[worker] = counters.state
        self._instance_tunnels[worker] = dict(counters.instance_tunnels)

    def lost(self, worker: int) -> None:
        """Forget what a worker had under way: it has ended."""
        self.states.pop(worker, None)
        self._instance_tunnels.pop(worker, None)

    def observe(self, metric: str, labels: tuple[str, ...], seconds: float) -> None:
        """Add what control itself has measured."""
        self.seconds[metric, labels].add(seconds)

    def api_called(self, call: str, outcome: str, seconds: float) -> None:
        """Add a call of the VISA API that control has made."""
        self.observe(metrics.API_SECONDS, (call, outcome), seconds)

    def under_way(self, name: str) -> int:
        """Add up one field of `WorkerState`."""
        return sum(getattr(state, name) for state in self.states.values())

    def instance_tunnels(self) -> Counter[int]:
        """Add up the WebSockets of each instance."""
        found: Counter[int] = Counter()
        for tunnels in self._instance_tunnels.values():
            found.update(tunnels)
        return found

    def _keep(self, instance: str) -> None:
        self._instances[instance] = None
        if len(self._instances) > MOST_INSTANCES:
            oldest = next(iter(self._instances))
            del self._instances[oldest]
            self.counts.pop((metrics.INSTANCE_REQUESTS, (oldest,)), None)
            for direction in ("up", "down"):
                self.counts.pop((metrics.INSTANCE_BYTES, (oldest, direction)), None)
