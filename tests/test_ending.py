"""When tunnels are told that the worker stops (a clock that stands), and what it costs to end some."""

import asyncio
from typing import override

import pytest

from support.costs import instructions
from support.grants import Setting
from visa_jupyter_proxy.control.admin.ending import end_here
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.mailbox import EndTunnels
from visa_jupyter_proxy.worker.ending import MOST_IN_A_SECOND, Departure, end_tunnels
from visa_jupyter_proxy.worker.tunnel import Origin, Tunnel


class _Told(Tunnel):
    """A tunnel that only keeps whether it was told."""

    __slots__ = ("told",)

    def __init__(self, notebook: int = 0) -> None:
        self.told = False
        self.origin = Origin("", "", b"", b"", "jupyter", 12, "anna", None, 0.0, notebook)

    @override
    def end(self, code: int, reason: str, now: float) -> None:
        self.told = True

    @override
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


class _Workers(Supervisor):
    """Workers that only keep what they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[EndTunnels, int | None]] = []

    @override
    def end_tunnels(self, message: EndTunnels, worker: int | None = None) -> None:
        self.told.append((message, worker))


class TestEnding:
    """A user may have thousands of tunnels, and so may a session."""

    @pytest.mark.parametrize(
        "message",
        [
            EndTunnels(user="anna", code=1008, reason="x", forget_grants=True),
            EndTunnels(notebooks=frozenset(range(200)), code=1008, reason="x", forget_grants=True),
        ],
    )
    def test_each_tunnel_is_ended_and_all_grants_are_gone_through_once(self, message: EndTunnels) -> None:
        """Not once for each tunnel: whose grants are forgotten is the same for all of them."""

        async def cost(tunnels: int, grants: int) -> int:
            setting = Setting()
            for number in range(grants):
                await setting.grant(f"token{number}", 100 + number)
            connections = [_Told(number) for number in range(tunnels)]
            counted = instructions(lambda: end_tunnels(message, connections, setting.authorization, 0.0))
            assert all(one.told for one in connections)
            await setting.authorization.close()
            return counted

        async def main() -> None:
            many, few = await cost(200, 200), await cost(200, 1) + await cost(1, 200)
            assert many < 2 * few

        asyncio.run(main())

    def test_a_worker_is_told_once_of_all_that_are_ordered_one_by_one(self) -> None:
        """It goes through its tunnels for each message; an order about a user is one of its own."""
        workers = _Workers()
        orders = [Ending(number % 2, number, None, "ada") for number in range(4)]
        end_here(workers, [*orders, Ending(None, None, "anna", "ada")])
        told = [(message.user, message.notebooks, worker) for message, worker in workers.told]
        assert [("anna", None, None), (None, {0, 2}, 0), (None, {1, 3}, 1)] == told
