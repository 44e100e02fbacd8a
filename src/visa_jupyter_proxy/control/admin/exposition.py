"""`/metrics`: everything as Prometheus reads it, through one custom collector.

Prometheus-client's own counters are not used: its way with several processes costs 3 to 5 us for each
count, and keeps what a dead worker had under way. Here the sums are made when somebody asks.
"""

import itertools
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from visa_jupyter_proxy import __version__, metrics
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.metrics import BOUNDS, METRICS, PREFIX

type Sample = tuple[tuple[str, ...], float]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGESIZE")


class Exposition(Collector):
    """All metrics of a proxy."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: there is no other collector to clash with."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give every metric with its samples; those by instance only when they are wanted."""
        samples: dict[str, list[Sample]] = {name: [] for name in METRICS}
        for (name, labels), count in self._seen.sums.counts.items():
            samples[name].append((labels, count))
        for name, labels, value in itertools.chain(self._at_the_moment(), self._processes()):
            samples[name].append((labels, value))
        for name, found in samples.items():
            if name in _BY_INSTANCE and not self._seen.settings.metrics_per_instance:
                continue
            yield self._family(METRICS[name], found)

    def _family(self, metric: metrics.Metric, samples: list[Sample]) -> Metric:
        name = PREFIX + metric.name
        match metric.kind:
            case "counter":
                counter = CounterMetricFamily(name, metric.help, labels=metric.labels)
                for labels, value in samples or ([((), 0)] if not metric.labels else []):
                    counter.add_metric(labels, value)
                return counter
            case "gauge":
                gauge = GaugeMetricFamily(name, metric.help, labels=metric.labels)
                for labels, value in samples:
                    gauge.add_metric(labels, value)
                return gauge
            case "histogram":
                histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                for (of, labels), seconds in self._seen.sums.seconds.items():
                    if of == metric.name:
                        bounds = (*map(str, BOUNDS), "+Inf")
                        counts = itertools.accumulate(seconds.buckets)
                        buckets = [*zip(bounds, counts, strict=True)]
                        histogram.add_metric(labels, buckets, seconds.sum)
                return histogram

    def _at_the_moment(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        sums, notebooks, supervisor = self._seen.sums, self._seen.notebooks, self._seen.supervisor
        for kind, field in _CONNECTIONS.items():
            yield metrics.CONNECTIONS, (kind,), sums.under_way(field)
        yield metrics.PIPES, ("busy",), sums.under_way("pipes_busy")
        yield metrics.PIPES, ("idle",), sums.under_way("pipes_idle")
        yield metrics.GRANTS_REMEMBERED, (), sums.under_way("grants")
        yield metrics.API_CONNECTIONS, (), sums.under_way("api_connections") + self._seen.api.connections
        yield from self._access()
        yield metrics.NOTEBOOK_CONNECTIONS, (), notebooks.connections
        yield metrics.NOTEBOOKS_LINGERING, (), notebooks.lingering
        yield metrics.REPORTS_PENDING, (), notebooks.reports_pending
        yield metrics.REPORTS_AGE, (), notebooks.reports_age_s
        for settled, count in notebooks.reports_settled.items():
            yield metrics.REPORTS, settled, count
        yield metrics.JOURNAL_UP, (), notebooks.journal_state == "written"
        yield metrics.JOURNAL_WAITING, (), notebooks.records_waiting
        yield metrics.JOURNAL_LAG, (), notebooks.journal_lag_s
        yield metrics.JOURNAL_LOST, (), notebooks.records_lost
        yield metrics.JOURNAL_REPLACED, (), notebooks.journals_replaced
        yield metrics.WORKERS, ("serving",), supervisor.serving
        yield metrics.WORKERS, ("wanted",), supervisor.places
        yield metrics.WORKER_RESTARTS, (), supervisor.restarts
        yield metrics.DRAINING, (), self._seen.is_draining()
        yield metrics.STARTED, (), self._seen.started_at
        yield metrics.BUILD, (__version__, platform.python_version()), 1
        for instance, tunnels in sums.instance_tunnels().items():
            yield metrics.INSTANCE_TUNNELS, (str(instance),), tunnels

    def _access(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        vigil = self._seen.vigil
        yield metrics.ACCESS_WATCHED, (), vigil.watched
        yield metrics.ACCESS_DOUBTED, (), vigil.doubted
        yield metrics.ACCESS_UP, (), not vigil.is_failing
        for reason, count in vigil.ended.items():
            yield metrics.ACCESS_ENDED, (reason,), count

    def _processes(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        named = {f"worker-{place}": pid for place, pid in self._seen.supervisor.pids.items()}
        for name, pid in {"control": os.getpid(), **named}.items():
            try:
                used = _usage(pid)
            except OSError:
                continue  # it has ended meanwhile
            for metric, value in used.items():
                yield metric, (name,), value


_CONNECTIONS: Final = {
    "client": "downstream",
    "tunnel": "tunnels",
    "upstream_busy": "upstream_busy",
    "upstream_idle": "upstream_idle",
}
"""Label -> field of `WorkerState`."""

_BY_INSTANCE: Final = frozenset({metrics.INSTANCE_REQUESTS, metrics.INSTANCE_BYTES, metrics.INSTANCE_TUNNELS})


def _usage(pid: int) -> dict[str, float]:
    """Return what the kernel knows of a process (proc(5)). Raises `OSError` when it has ended."""
    process = Path("/proc") / str(pid)
    # The second field is the command in parentheses, and may hold blanks.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return {
        metrics.CPU: (int(fields[11]) + int(fields[12])) / _TICKS,
        metrics.MEMORY: int(fields[21]) * _PAGE,
        metrics.DESCRIPTORS: len(os.listdir(process / "fd")),  # noqa: PTH208 -- names are enough
    }
