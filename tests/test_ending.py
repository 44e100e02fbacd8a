"""When tunnels are told that the worker stops (a clock that stands)."""

import pytest

from visa_jupyter_proxy.worker.ending import MOST_IN_A_SECOND, Departure
from visa_jupyter_proxy.worker.tunnel import Tunnel


class _Told(Tunnel):
    """A tunnel that only keeps whether it was told."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = False

    def drain(self) -> None:
        """Keep it."""
        assert not self.told
        self.told = True


def _counts(tunnels: int, seconds: float, moments: list[float]) -> list[int]:
    all_of_them = [_Told() for _ in range(tunnels)]
    departure = Departure({*all_of_them, "not a tunnel"}, 100.0, seconds)
    counts = []
    for moment in moments:
        departure.step(100.0 + moment)
        counts.append(sum(one.told for one in all_of_them))
    return counts


class TestDeparture:
    """Nobody waits longer than is of use, and all are told in the first three quarters of a worker's time."""

    def test_a_few(self) -> None:
        """One after the other, at a pace that does not depend on how long a drain may take."""
        assert [1, 1, 2, 3, 3] == _counts(3, 600.0, [0.0, 0.01, 0.021, 0.05, 1.0])

    def test_as_many_as_the_time_allows(self) -> None:
        """2 000 in 6.4 s, which are 8 s of `DRAIN_S`: evenly, until 4.8 s."""
        assert [1, 501, 1001, 1501, 2000] == _counts(2000, 6.4, [0.0, 1.201, 2.401, 3.601, 4.8])

    def test_no_faster_than_that_while_there_is_time(self) -> None:
        """2 000 in an hour take 40 s."""
        assert [1, 1001, 2000] == _counts(2000, 3600.0, [0.0, 1000.1 / MOST_IN_A_SECOND, 41.0])

    @pytest.mark.parametrize("seconds", [0.0, -0.1])
    def test_without_time_all_at_once(self, seconds: float) -> None:
        """There is nothing to be gained by order."""
        assert [7] == _counts(7, seconds, [0.0])

    def test_no_tunnels(self) -> None:
        """Nothing happens."""
        assert [0, 0] == _counts(0, 6.0, [0.0, 10.0])

    def test_who_has_ended_by_itself_costs_nobody_time(self) -> None:
        """The next one is told in its place."""
        tunnels = [_Told() for _ in range(10)]
        connections: set[object] = {*tunnels}
        departure = Departure(connections, 0.0, 600.0)
        connections -= {*tunnels[:9]}
        departure.step(0.0)
        assert tunnels[9].told
