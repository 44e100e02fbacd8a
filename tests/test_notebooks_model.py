"""Notebook sessions against a simple model: whatever the order of things, the API ends up right.

Tunnels open and end on several control processes that share a journal, workers are lost, processes are
killed, stopped and replaced, tokens expire, the store and the API fail and come back. At the end, with
everything up and time enough, the API must have exactly those sessions active that a living connection
carries; only an open whose token died with a process may be missing, until its user comes back.
"""

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.delivering import deliver
from support.plain_api import PlainApi
from support.sessions import Clock, accepted, ended, key, opened, progressed, rows
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi

_KEYS = st.integers(1, 3)
_NODES = st.integers(0, 1)

UNEQUAL = """
SELECT sessions.id FROM sessions JOIN connections ON connections.session = sessions.id GROUP BY sessions.id
HAVING sessions.connections IS NOT count(*)
  OR sessions.bytes_up IS NOT sum(connections.bytes_up)
  OR sessions.messages_up IS NOT sum(connections.messages_up)
  OR sessions.first_interaction_at IS NOT min(connections.first_interaction_at)
  OR sessions.last_interaction_at IS NOT max(connections.last_interaction_at)
  OR sessions.closed_at IS NOT NULL AND sessions.closed_at IS NOT max(connections.ended_at)
"""
"""Sessions whose figures are not those of their connections together."""


class Node:
    """A control process."""

    def __init__(self, directory: Path, api: VisaApi, clock: Clock, linger_s: float) -> None:
        self.journal = Journal(directory)
        self.notebooks = Notebooks(
            self.journal,
            api,
            linger_s=linger_s,
            monotonic=clock,
            wall=lambda: 2000.0,
            jitter=lambda: 0.5,
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
        self.token = 0
        self.linger_s = 0.0
        self.killed = False
        self.nodes: list[Node] = []

    def run(self, *steps: Awaitable[object]) -> None:
        """Run coroutines one after the other."""

        async def all_of_them() -> None:
            for step in steps:
                await step

        self.runner.run(all_of_them())

    def new_node(self) -> Node:
        """Start a control process."""
        node = Node(self.directory, self.api, self.clock, self.linger_s)
        self.run(node.notebooks.step())
        return node

    @initialize(linger_s=st.sampled_from([0.0, 5.0, 30.0]))
    def begin(self, linger_s: float) -> None:
        """Start both."""
        self.linger_s = linger_s
        self.nodes = [self.new_node() for _ in range(2)]

    @rule(node=_NODES, number=_KEYS)
    def open(self, node: int, number: int) -> None:
        """Open a tunnel of a session."""
        self.tunnel += 1
        self.nodes[node].tunnels[self.tunnel] = key(number)
        message = opened(self.tunnel, key(number), token=f"token {self.token}")
        self.nodes[node].notebooks.tunnel_opened(self.tunnel % 2, message)

    @rule(node=_NODES, chance=st.integers(0, 100))
    def end(self, node: int, chance: int) -> None:
        """One of the tunnels ends."""
        tunnels = self.nodes[node].tunnels
        if tunnels:
            tunnel = sorted(tunnels)[chance % len(tunnels)]
            del tunnels[tunnel]
            self.nodes[node].notebooks.tunnel_ended(tunnel % 2, ended(tunnel))

    @rule(node=_NODES, chance=st.integers(0, 100))
    def progress(self, node: int, chance: int) -> None:
        """Something passes through one of the tunnels."""
        tunnels = sorted(self.nodes[node].tunnels)
        if tunnels:
            tunnel = tunnels[chance % len(tunnels)]
            message = progressed(tunnel, messages_up=chance)
            self.nodes[node].notebooks.tunnel_progressed(tunnel % 2, message)

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
        self.run(deliver(self.nodes[node].notebooks._delivery))

    @rule()
    def expire_token(self) -> None:
        """Refuse the user's token from now on; they have another one."""
        self.api.expired.add(f"token {self.token}")
        self.token += 1

    @rule(node=_NODES)
    def accept_token(self, node: int) -> None:
        """Bring the user's token by a plain request."""
        message = accepted("anna", f"token {self.token}")
        self.nodes[node].notebooks.token_accepted(message)

    @rule(seconds=st.sampled_from([1, 3, 6, 20]))
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
        self.nodes[node] = self.new_node()

    @rule(node=_NODES)
    def stop(self, node: int) -> None:
        """Stop a process in order, and start another one in its place."""
        self.killed = True
        self.run(self.nodes[node].notebooks.stop(1))
        self.nodes[node] = self.new_node()

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
        for place in range(2):
            self.accept_token(place)
        for _ in range(60):
            self.clock.now += 3
            for node in self.nodes:
                self.run(node.notebooks.step(), deliver(node.notebooks._delivery), node.notebooks.step())

    def excused(self) -> set[NotebookKey]:
        """Give the sessions whose open the journal says was not delivered (its token died with a process)."""
        found = rows(
            self.directory / "journal.sqlite3",
            "SELECT kernel_id FROM sessions JOIN reports ON reports.session = sessions.id"
            " WHERE closed_at IS NULL AND kind = 'open'"
            " GROUP BY sessions.id HAVING min(state) = 'not delivered' AND max(state) = 'not delivered'",
        )
        return {key(int(kernel.removeprefix("kernel-"))) for (kernel,) in found}

    def teardown(self) -> None:
        """Judge."""
        try:
            if self.nodes:
                self.calm()
                self.judge()
                self.come_back()
                self.calm()
                assert set() == self.excused()
                self.judge()
        finally:
            self.run(*(node.journal.close() for node in self.nodes))
            self.runner.close()
            self.temporary.cleanup()

    def come_back(self) -> None:
        """Have every browser connect anew, with the user's token."""
        for place, node in enumerate(dict.fromkeys(self.nodes)):
            for tunnel, notebook in list(node.tunnels.items()):
                self.open(place, int(notebook.kernel_id.removeprefix("kernel-")))
                del node.tunnels[tunnel]
                node.notebooks.tunnel_ended(tunnel % 2, ended(tunnel))

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
        assert [] == rows(file, UNEQUAL)


class SessionsOnABrokenStore(Sessions):
    """One control process, whose store goes away and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    @initialize(linger_s=st.sampled_from([0.0, 5.0]))
    def begin(self, linger_s: float) -> None:
        """Start one; the other place is taken by the same."""
        self.linger_s = linger_s
        node = self.new_node()
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

    @rule(node=_NODES)
    def stop(self, node: int) -> None:
        """Nor this."""

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
