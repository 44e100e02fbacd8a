"""SIGUSR1 writes what every process has open and under way; and what tests conclude from that."""

import os
import signal
from collections.abc import Callable
from typing import Any, Final

import pytest

from process.conftest import TOKEN, Place, channel, request
from support.usage import Start, State, descriptors

_EVERY: Final = {"timestamp", "level", "event", "process", "pid", "descriptors", "tasks", "memory_kib"}
_CONTROL: Final = {
    "workers",
    "notebook_connections",
    "journal",
    "upkeep",
    "records_waiting",
    "reports_pending",
    "access_watched",
    "access_doubted",
    "api_connections",
}
_WORKER: Final = {
    "clients",
    "downstream",
    "upstream_busy",
    "upstream_idle",
    "tunnels",
    "pipes_busy",
    "pipes_idle",
    "grants",
    "api_connections",
}


class TestSignal:
    """What an operator gets."""

    def test_a_proxy_at_rest(self, place: Place) -> None:
        """One line for each process, with what it uses as the kernel counts it, and nothing under way."""
        proxy = place.start()
        control, worker = Start(proxy.states).states
        assert (proxy.pid, proxy.worker_pid) == (control["pid"], worker["pid"])
        assert (_EVERY | _CONTROL, _EVERY | _WORKER) == (set(control), set(worker))
        assert "written" == control["journal"]
        assert {"workers": 1} == {name: control[name] for name in _CONTROL - {"journal"} if control[name]}
        assert {} == {name: worker[name] for name in _WORKER if worker[name]}
        for state in (control, worker):
            assert descriptors(state["pid"]) == state["descriptors"]
            assert 20_000 < state["memory_kib"] < 200_000

    def test_what_is_under_way(self, place: Place) -> None:
        """A kernel channel, a client that keeps its connection, and a report that VISA does not take."""
        proxy = place.start()
        at_rest = Start(proxy.states).states
        idle, kernel = place.client(proxy), place.client(proxy)
        assert idle.ask(request()).status == 200
        place.api.down()
        assert kernel.ask(channel("S")).status == 101

        def under_way() -> bool:
            control = proxy.states()[0]
            expected = {"notebook_connections": 1, "reports_pending": 1, "records_waiting": 0}
            return expected == {name: control[name] for name in expected}

        proxy.wait(under_way)
        worker = proxy.states()[1]
        assert {"clients": 2, "downstream": 1, "upstream_busy": 0, "tunnels": 1, "grants": 1} == {
            name: worker[name] for name in ("clients", "downstream", "upstream_busy", "tunnels", "grants")
        }
        # The channel has taken the idle connection to the instance along; the API has cut its own.
        assert (0, 0) == (worker["upstream_idle"], worker["api_connections"])
        assert 1 + 2 == worker["descriptors"] - at_rest[1]["descriptors"]
        assert TOKEN not in proxy.log.read_text()
        place.api.up()

    def test_what_is_kept(self, place: Place) -> None:
        """Connections that wait for the next request are told apart from those that serve one."""
        proxy = place.start()
        start = Start(proxy.states)
        client = place.client(proxy)
        assert client.ask(request()).status == 200
        worker = proxy.states()[1]
        assert (1, 0, 1) == (worker["upstream_idle"], worker["upstream_busy"], worker["api_connections"])
        assert ["worker: clients 1", "worker: downstream 1"] == start.left()
        client.sock.close()
        start.wait_until_back()

    def test_to_all_at_once(self, place: Place) -> None:
        """Who sends it to the whole group gets one line of each, and nobody ends."""
        proxy = place.start()
        worker = proxy.worker_pid
        os.killpg(proxy.pid, signal.SIGUSR1)
        proxy.wait(lambda: len(proxy.records("state")) == 2)
        assert place.client(proxy).ask(request()).status == 200
        assert [proxy.pid, worker] == [state["pid"] for state in proxy.records("state")]
        assert worker == proxy.worker_pid


class TestLeaks:
    """What the tests' own check of a proxy finds: it would be worth nothing if it found nothing."""

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({}, []),
            ({"tasks": 2}, ["worker: tasks 1 -> 2"]),
            ({"tasks": 0}, ["worker: tasks 1 -> 0"]),
            ({"descriptors": 18}, ["worker: descriptors that nothing explains 17 -> 18"]),
            ({"descriptors": 20, "upstream_idle": 2, "api_connections": 1}, []),
            ({"upstream_idle": 1}, ["worker: descriptors that nothing explains 17 -> 16"]),
            ({"clients": 1}, ["worker: clients 1"]),
            ({"descriptors": 19, "tunnels": 1}, ["worker: tunnels 1"]),
            ({"memory_kib": 45_101}, ["worker: memory +101 KiB"]),
            ({"memory_kib": 45_100, "grants": 9}, []),
            (
                {"pid": 3},
                ["the processes were control 1, worker 2 and are control 1, worker 3"],
            ),
        ],
        ids=str,
    )
    def test_what_is_left(self, change: dict[str, int], found: list[str]) -> None:
        """Whatever is more than at the start, or less, and is not kept for reuse, is named."""
        control = {
            **_used(1),
            "process": "control",
            "journal": "written",
            **dict.fromkeys(_CONTROL - {"journal"}, 0),
        }
        worker = {**_used(2), "process": "worker", **dict.fromkeys(_WORKER, 0)}
        answers = [[control, worker], [control, {**worker, **change}]]
        start = Start(_one_after_the_other(answers), allowed_growth_kib=100)
        assert found == start.left()


def _used(pid: int) -> dict[str, Any]:
    return {"pid": pid, "descriptors": 17, "tasks": 1, "memory_kib": 45_000}


def _one_after_the_other(answers: list[list[State]]) -> Callable[[], list[State]]:
    return iter(answers).__next__
