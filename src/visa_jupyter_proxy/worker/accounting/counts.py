"""What a worker counts, and sends to control once a second.

On the way of a request it is one tuple that is appended: 1 % of a small request. When the second is over all
of them are added up together, labels are made, and what clients may choose is bounded; what has been sent is
forgotten, so nothing is kept of what comes once.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.errors import ClientGone, ProxyError
from visa_jupyter_proxy.mailbox import Count, Counters, Observed
from visa_jupyter_proxy.metrics import BOUNDS, BUCKETS
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.state import WorkerState
from visa_jupyter_proxy.worker.exchange import Exchange, Phase
from visa_jupyter_proxy.worker.tunnel import Tunnel

_NO_ROUTE: Final = ""
_BEGAN: Final = int(Phase.ROUTE)
_FORWARDED: Final = int(Phase.FORWARD)

type _Row = tuple[bytes, int | None, int, int, float, float]
"""Method, status, bytes up and down, seconds in all and since it was forwarded."""


class _Seconds:
    """A histogram: how many took how long."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def add_all(self, seconds: Iterable[float]) -> None:
        """Add many at once: sorted, a bucket is a stretch of them."""
        ordered = sorted(seconds)
        begin = 0
        for bucket, bound in enumerate(BOUNDS):
            end = bisect_right(ordered, bound, begin)
            self.buckets[bucket] += end - begin
            begin = end
        self.buckets[-1] += len(ordered) - begin
        self.sum += sum(ordered)


class Counts:
    """The counts of one worker. Nothing here waits, fails or looks at a clock; times in seconds."""

    def __init__(self, routes: Iterable[Route], *, per_instance: bool = False) -> None:
        """`per_instance` also counts for each instance, as `METRICS_PER_INSTANCE` asks."""
        self._per_instance = per_instance
        self._done: dict[str, list[_Row]] = {route.name: [] for route in routes}
        """Route -> requests that came to their end within this second."""
        self._counts: defaultdict[tuple[str, tuple[str, ...]], int] = defaultdict(int)
        self._seconds: defaultdict[tuple[str, tuple[str, ...]], _Seconds] = defaultdict(_Seconds)
        self._moved: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        """Route -> bytes up and down of all that has ended, since the start."""
        self._totals: dict[tuple[str, tuple[str, ...]], int] = {}
        """What was said so far of counts that go on."""

    def know(self, routes: Iterable[Route]) -> None:
        """Count for these routes, too; those that vanish may still have requests under way."""
        for route in routes:
            self._done.setdefault(route.name, [])

    # --- on the way of a request ------------------------------------------------------------

    def exchange_ended(self, exchange: Exchange, now: float) -> None:
        """Count a request that is over."""
        match, stamps = exchange.match, exchange.stamps
        forwarded_at = stamps[_FORWARDED]
        if exchange.error is not None or forwarded_at is None or match is None:
            self._not_served(exchange, now)
            return
        self._done[match.route.name].append(
            (
                exchange.request.method,
                exchange.status,
                exchange.bytes_up,
                exchange.bytes_down,
                now - (stamps[_BEGAN] or now),
                now - forwarded_at,
            )
        )
        if self._per_instance:
            self._of_instance(match.instance_id, exchange.bytes_up, exchange.bytes_down)

    # --- what is rare -----------------------------------------------------------------------

    def _not_served(self, exchange: Exchange, now: float) -> None:
        """Count a request that was refused or broken off, or answered by us."""
        match, stamps = exchange.match, exchange.stamps
        route = _NO_ROUTE if match is None else match.route.name
        status = ClientGone.status if exchange.status is None else exchange.status
        self._count_requests(route, exchange.request.method, status, 1)
        self._seconds[metrics.REQUEST_SECONDS, (route,)].add(now - (stamps[_BEGAN] or now))
        if (forwarded_at := stamps[_FORWARDED]) is not None:
            self._seconds[metrics.PHASE_SECONDS, (route, "forward")].add(now - forwarded_at)
        self._move(route, exchange.bytes_up, exchange.bytes_down)
        if exchange.error is not None:
            self.refused(exchange.error)
        if self._per_instance and match is not None and exchange.grant is not None:
            # Whoever is refused writes what number they like.
            self._of_instance(match.instance_id, exchange.bytes_up, exchange.bytes_down)

    def refused(self, error: ProxyError) -> None:
        """Count what was refused or broken off."""
        self._counts[metrics.REFUSALS, (error.error,)] += 1

    def phase_took(self, route: str, phase: str, seconds: float) -> None:
        """Count a request that had to wait: for the VISA API (`authorize`), or to `connect`."""
        self._seconds[metrics.PHASE_SECONDS, (route, phase)].add(seconds)

    def api_called(self, call: str, outcome: str, seconds: float) -> None:
        """Count a call of the VISA API."""
        self._seconds[metrics.API_SECONDS, (call, outcome)].add(seconds)

    def tunnel_opened(self, exchange: Exchange) -> None:
        """Count a request that has become a WebSocket."""
        match = exchange.match
        assert match is not None  # noqa: S101 -- what was forwarded has one
        route = match.route.name
        self._count_requests(route, exchange.request.method, 101, 1)
        self._counts[metrics.TUNNELS_OPENED, (route,)] += 1
        if self._per_instance:
            self._of_instance(match.instance_id, 0, 0)

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Count a WebSocket that is over."""
        error = tunnel.error
        self._counts[metrics.TUNNELS_ENDED, ("closed" if error is None else error.error,)] += 1
        up, down = tunnel.down.received, tunnel.up.received
        self._move(tunnel.origin.route, up, down)
        if self._per_instance:
            self._bytes_of_instance(tunnel.origin.instance_id, up, down)

    def _count_requests(self, route: str, method: bytes, status: int, count: int) -> None:
        labels = (route, metrics.method_label(method), metrics.code_label(status))
        self._counts[metrics.REQUESTS, labels] += count

    def _of_instance(self, instance: int, up: int, down: int) -> None:
        self._counts[metrics.INSTANCE_REQUESTS, (str(instance),)] += 1
        self._bytes_of_instance(instance, up, down)

    def _bytes_of_instance(self, instance: int, up: int, down: int) -> None:
        for direction, count in (("up", up), ("down", down)):
            if count:
                self._counts[metrics.INSTANCE_BYTES, (str(instance), direction)] += count

    def _move(self, route: str, up: int, down: int) -> None:
        moved = self._moved[route]
        moved[0] += up
        moved[1] += down

    # --- once a second ----------------------------------------------------------------------

    def ticked(self, late_s: float) -> None:
        """Count how late the loop is for its tick."""
        self._seconds[metrics.LOOP_SECONDS, ("worker",)].add(max(0.0, late_s))

    def reached(self, metric: str, labels: tuple[str, ...], total: int) -> None:
        """Take over a count that somebody else keeps, since the start."""
        key = (metric, labels)
        self._counts[key] += total - self._totals.get(key, 0)
        self._totals[key] = total

    def take(self, state: WorkerState, tunnels: Sequence[Tunnel], exchanges: Iterable[Exchange]) -> Counters:
        """Make the message about this second, with what is under way now."""
        self._add_up()
        self._measure(tunnels, exchanges)
        instances = Counter(tunnel.origin.instance_id for tunnel in tunnels) if self._per_instance else {}
        message = Counters(
            counts=tuple(Count(*key, count) for key, count in self._counts.items() if count),
            observed=tuple(
                Observed(*key, tuple(seconds.buckets), seconds.sum) for key, seconds in self._seconds.items()
            ),
            state=state,
            instance_tunnels=tuple(instances.items()),
        )
        self._counts.clear()
        self._seconds.clear()
        return message

    def _add_up(self) -> None:
        """Count what is done, a column at a time: that is work for C."""
        for route, rows in self._done.items():
            if not rows:
                continue
            methods, statuses, up, down, whole, forward = zip(*rows, strict=True)
            rows.clear()
            for (method, status), count in Counter(zip(methods, statuses, strict=True)).items():
                self._count_requests(route, method, status, count)
            self._move(route, sum(up), sum(down))
            self._seconds[metrics.REQUEST_SECONDS, (route,)].add_all(whole)
            self._seconds[metrics.PHASE_SECONDS, (route, "forward")].add_all(forward)

    def _measure(self, tunnels: Iterable[Tunnel], exchanges: Iterable[Exchange]) -> None:
        """Add what running bodies and tunnels have moved so far to what has ended."""
        moved = {route: [*both] for route, both in self._moved.items()}
        for tunnel in tunnels:
            both = moved.setdefault(tunnel.origin.route, [0, 0])
            both[0] += tunnel.down.received
            both[1] += tunnel.up.received
        for exchange in exchanges:
            match = exchange.match
            both = moved.setdefault(_NO_ROUTE if match is None else match.route.name, [0, 0])
            both[0] += exchange.bytes_up
            both[1] += exchange.bytes_down
        for route, (up, down) in moved.items():
            self.reached(metrics.BYTES, (route, "up"), up)
            self.reached(metrics.BYTES, (route, "down"), down)
