"""Notebook sessions against a simple model: whatever the order of things, the API ends up right.

Tunnels open and end on several control processes that share a journal, processes are killed and
replaced, the store and the API fail and come back. At the end, with everything up and time enough,
the API must have exactly those sessions active that a living connection carries.
"""

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.sessions import Clock, ended, key, opened, rows
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.errors import VisaUnreachable
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi

_KEYS = st.integers(1, 3)
_NODES = st.integers(0, 1)


class PlainApi(VisaApi):
    """The contract's open and close on a set, without sockets; it can be down, or lose its answer."""

    def __init__(self) -> None:
        self.active: set[NotebookKey] = set()
        self.mood = "up"

    async def open_notebook(self, token: str, instance_id: int, kernel_id: str, session_id: str) -> None:  # noqa: ARG002 -- the interface of VisaApi
        """See `VisaApi`."""
        self._do(self.active.add, NotebookKey(instance_id, kernel_id, session_id))

    async def close_notebook(self, instance_id: int, kernel_id: str, session_id: str) -> None:
        """See `VisaApi`."""
        self._do(self.active.discard, NotebookKey(instance_id, kernel_id, session_id))

    def _do(self, action: Any, notebook: NotebookKey) -> None:
        if self.mood != "down":
            action(notebook)
        if self.mood != "up":
            raise VisaUnreachable(self.mood)


class Node:
    """A control process."""

    def __init__(self, directory: Path, api: VisaApi, clock: Clock) -> None:
        self.journal = Journal(directory)
        self.notebooks = Notebooks(
            self.journal, api, monotonic=clock, wall=lambda: 2000.0, jitter=lambda: 0.5
        )
        self.tunnels: dict[int, NotebookKey] = {}


class Sessions(RuleBasedStateMachine):
    """Two control processes on one journal."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name) / "data"
        self.clock = Clock()
        self.api = PlainApi()
        self.tunnel = 0
        self.killed = False
        self.nodes: list[Node] = []

    def run(self, *steps: Awaitable[object]) -> None:
        """Run coroutines one after the other."""

        async def all_of_them() -> None:
            for step in steps:
                await step

        self.runner.run(all_of_them())

    @initialize()
    def begin(self) -> None:
        """Start both."""
        for _ in range(2):
            self.nodes.append(Node(self.directory, self.api, self.clock))
            self.run(self.nodes[-1].notebooks.step())

    @rule(node=_NODES, number=_KEYS)
    def open(self, node: int, number: int) -> None:
        """Open a tunnel of a session."""
        self.tunnel += 1
        self.nodes[node].tunnels[self.tunnel] = key(number)
        self.nodes[node].notebooks.tunnel_opened(self.tunnel % 2, opened(self.tunnel, key(number)))

    @rule(node=_NODES, chance=st.integers(0, 100))
    def end(self, node: int, chance: int) -> None:
        """One of the tunnels ends."""
        tunnels = self.nodes[node].tunnels
        if tunnels:
            tunnel = sorted(tunnels)[chance % len(tunnels)]
            del tunnels[tunnel]
            self.nodes[node].notebooks.tunnel_ended(tunnel % 2, ended(tunnel))

    @rule(node=_NODES, worker=st.integers(0, 1))
    def lose_worker(self, node: int, worker: int) -> None:
        """All tunnels of a worker are over."""
        tunnels = self.nodes[node].tunnels
        for tunnel in [tunnel for tunnel in tunnels if tunnel % 2 == worker]:
            del tunnels[tunnel]
        self.nodes[node].notebooks.worker_lost(worker, 1001.0)

    @rule(node=_NODES)
    def write(self, node: int) -> None:
        """Give the journal's task its turn."""
        self.run(self.nodes[node].notebooks.step())

    @rule(node=_NODES)
    def deliver(self, node: int) -> None:
        """Give the delivery its turn."""
        self.run(self.nodes[node].notebooks.deliver())

    @rule(seconds=st.sampled_from([1, 3, 20]))
    def pass_time(self, seconds: int) -> None:
        """Time passes; whoever is not given a turn stands still."""
        self.clock.now += seconds

    @rule(mood=st.sampled_from(["up", "down", "answer lost"]))
    def change_mood(self, mood: str) -> None:
        """Let the API go, come, or do what it is told and lose the answer."""
        self.api.mood = mood

    @rule(node=_NODES)
    def kill(self, node: int) -> None:
        """Kill a process with all its connections, and start another one in its place."""
        self.killed = True
        self.run(self.nodes[node].journal.close())
        self.nodes[node] = Node(self.directory, self.api, self.clock)

    @invariant()
    def a_key_is_open_at_most_once(self) -> None:
        """In the journal, at any time."""
        file = self.directory / "journal.sqlite3"
        if file.exists():
            assert [] == rows(
                file,
                "SELECT kernel_id FROM sessions WHERE closed_at IS NULL"
                " GROUP BY kernel_id HAVING count(*) > 1",
            )

    def live(self) -> set[NotebookKey]:
        """Give the sessions that a connection carries."""
        return {notebook for node in self.nodes for notebook in node.tunnels.values()}

    def calm(self) -> None:
        """Everything is up, and there is time for everything."""
        self.api.mood = "up"
        for _ in range(60):
            self.clock.now += 3
            for node in self.nodes:
                self.run(node.notebooks.step(), node.notebooks.deliver(), node.notebooks.step())

    def excused(self) -> set[NotebookKey]:
        """Give the sessions whose open the journal says was not delivered (its token died with a process)."""
        found = rows(
            self.directory / "journal.sqlite3",
            "SELECT kernel_id FROM sessions JOIN reports ON reports.session = sessions.id"
            " WHERE closed_at IS NULL AND kind = 'open' AND state = 'not delivered'",
        )
        return {key(int(kernel.removeprefix("kernel-"))) for (kernel,) in found}

    def teardown(self) -> None:
        """Judge."""
        try:
            if self.nodes:
                self.calm()
                self.judge()
        finally:
            self.run(*(node.journal.close() for node in self.nodes))
            self.runner.close()
            self.temporary.cleanup()

    def judge(self) -> None:
        """Compare the API, the journal and the truth."""
        excused = self.excused()
        assert self.killed or not excused
        assert self.live() - excused <= self.api.active <= self.live()
        file = self.directory / "journal.sqlite3"
        assert {(one.kernel_id,) for one in self.live()} == set(
            rows(file, "SELECT kernel_id FROM sessions WHERE closed_at IS NULL")
        )
        assert [] == rows(file, "SELECT id FROM reports WHERE state = 'pending'")


class SessionsOnABrokenStore(Sessions):
    """One control process, whose store goes away and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    @initialize()
    def begin(self) -> None:
        """Start one; the other place is taken by the same."""
        node = Node(self.directory, self.api, self.clock)
        self.run(node.notebooks.step())
        self.nodes = [node, node]

    @precondition(lambda self: not self.away)
    @rule()
    def take_store_away(self) -> None:
        """Put a file where the directory was."""
        self.away = True
        self.directory.rename(self.directory.with_name("away"))
        self.directory.touch()

    @precondition(lambda self: self.away)
    @rule()
    def bring_store_back(self) -> None:
        """With all that it held."""
        self.away = False
        self.directory.unlink()
        self.directory.with_name("away").rename(self.directory)

    @rule(node=_NODES)
    def kill(self, node: int) -> None:
        """Not here: what only memory holds dies with its process."""

    @invariant()
    def a_key_is_open_at_most_once(self) -> None:
        """In the journal, while it is there."""
        if not self.away:
            super().a_key_is_open_at_most_once()

    def calm(self) -> None:
        """Bring the store back, too."""
        if self.away:
            self.bring_store_back()
        super().calm()


_SETTINGS = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestSessions = Sessions.TestCase
TestSessions.settings = _SETTINGS
TestSessionsOnABrokenStore = SessionsOnABrokenStore.TestCase
TestSessionsOnABrokenStore.settings = _SETTINGS
