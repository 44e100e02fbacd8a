"""Orders of events: what is told of sessions that end, come back, move, and lose those who carry them.

A story has two control processes, a and b, on one journal, a clock, and an API in memory. Session n of
user anna, bert, ... is named by its number; each line is an event or what must have been told since.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from support.delivering import deliver
from support.plain_api import PlainApi
from support.sessions import Clock, accepted, ended, key, opened, progressed
from support.storage import Storage
from visa_jupyter_proxy.control.notebooks import Notebooks

LINGER_S = 5.0


class Process:
    """A control process and what its workers carry."""

    def __init__(self, story: "Story") -> None:
        self.journal = story.storage.journal()
        self.notebooks = Notebooks(
            self.journal,
            story.api,
            linger_s=story.linger_s,
            monotonic=story.clock,
            wall=lambda: 1000.0 + story.clock.now,
            jitter=lambda: 0.5,
        )
        self.tunnels: dict[int, list[int]] = {}
        """Session -> its tunnels."""
        self.stands_still = False


class Story:
    """What happens, and what is told of it."""

    def __init__(self, storage: Storage, linger_s: float) -> None:
        self.storage = storage
        self.linger_s = linger_s
        self.clock = Clock()
        self.api = PlainApi()
        self.processes: dict[str, Process] = {}
        self._tunnel = 0
        self._heard = 0

    # --- processes ------------------------------------------------------------------------------

    async def starts(self, *names: str) -> None:
        """Start control processes."""
        for name in names:
            self.processes[name] = Process(self)
        await self.passes(0)

    async def is_killed(self, name: str) -> None:
        """Take a process away, with all that only its memory holds."""
        await self.processes.pop(name).journal.close()

    async def stops(self, name: str) -> None:
        """Stop a process in order."""
        await self.processes.pop(name).notebooks.stop(10)

    def stands_still(self, name: str, *, still: bool = True) -> None:
        """Suspend a process; with `still=False` it goes on."""
        self.processes[name].stands_still = still

    async def passes(self, seconds: float, *, step: float = 1) -> None:
        """Let time pass, a second at a time, with a turn for everybody in each."""
        until = self.clock.now + seconds
        while True:
            for process in [one for one in self.processes.values() if not one.stands_still]:
                await process.notebooks.step()
                await deliver(process.notebooks._delivery)
                await process.notebooks.step()
            if self.clock.now >= until:
                return
            self.clock.now = min(until, self.clock.now + step)

    # --- connections ----------------------------------------------------------------------------

    def opens(
        self, name: str, session: int, *, user: str = "anna", token: str = "t1", worker: int = 1
    ) -> None:
        """Have a connection of a session begin."""
        self._tunnel += 1
        process = self.processes[name]
        process.tunnels.setdefault(session, []).append(self._tunnel)
        message = opened(self._tunnel, key(session), user=user, token=token, at=1000.0 + self.clock.now)
        process.notebooks.tunnel_opened(worker, message)

    def ends(self, name: str, session: int, *, worker: int = 1) -> None:
        """Have the oldest connection of a session end."""
        process = self.processes[name]
        tunnel = process.tunnels[session].pop(0)
        process.notebooks.tunnel_ended(worker, ended(tunnel, at=1000.0 + self.clock.now))

    def accepts(self, name: str, token: str, *, user: str = "anna") -> None:
        """Have the API accept a token on a plain request."""
        self.processes[name].notebooks.token_accepted(accepted(user, token))

    # --- what is told ---------------------------------------------------------------------------

    def told(self, *expected: str) -> None:
        """See that exactly this was told since the last time: `open 1`, `close 1`."""
        assert [*expected] == self._new()

    def told_in_any_order(self, *expected: str) -> None:
        """See the same of sessions that were lost together."""
        assert [*expected] == sorted(self._new())

    def _new(self) -> list[str]:
        start, self._heard = self._heard, len(self.api.told)
        return [f"{what} {one.kernel_id.removeprefix('kernel-')}" for what, one in self.api.told[start:]]

    def journalled(self, columns: str = "opened_at, closed_at, reason") -> list[tuple[Any, ...]]:
        """Read all sessions, in the order of their opening."""
        return self.storage.rows(f"SELECT {columns} FROM sessions ORDER BY opened_at, kernel_id")


def tell(
    storage: Storage,
    story: Callable[[Story], Coroutine[Any, Any, None]],
    *,
    linger_s: float = LINGER_S,
    starts: str = "ab",
) -> None:
    """Tell a story."""

    async def main() -> None:
        told = Story(storage, linger_s)
        try:
            await told.starts(*starts)
            await story(told)
        finally:
            for process in told.processes.values():
                await process.journal.close()

    asyncio.run(main())


class TestLinger:
    """A session is closed when its last connection has been gone for a while, and not before."""

    def test_close_comes_when_the_last_connection_has_been_gone_for_the_linger(
        self, storage: Storage
    ) -> None:
        """Its end in the journal is the true one."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            await s.passes(10)
            s.told("open 1")
            s.ends("a", 1)
            await s.passes(4)
            s.told()
            assert [(1000.0, None, None)] == s.journalled()
            await s.passes(1)
            s.told("close 1")
            assert [(1000.0, 1010.0, "browser closed")] == s.journalled()

        tell(storage, story)

    @pytest.mark.parametrize("place", ["a", "b"])
    @pytest.mark.parametrize("first", ["it opens", "it ends"])
    def test_a_browser_that_comes_back_has_the_same_session(
        self, storage: Storage, place: str, first: str
    ) -> None:
        """Here or on another node, before or after the old connection is seen to end."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            await s.passes(3)
            if first == "it opens":
                s.opens(place, 1)
                await s.passes(1)
                s.ends("a", 1)
            else:
                s.ends("a", 1)
                await s.passes(4)
                s.opens(place, 1)
            await s.passes(60)
            s.told("open 1")
            assert [(1000.0, None, 2)] == s.journalled("opened_at, closed_at, connections")
            s.ends(place, 1)
            await s.passes(5)
            s.told("close 1")
            assert 1 == len(s.journalled())

        tell(storage, story)

    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_two_nodes_see_their_ends_in_any_order(self, storage: Storage, order: str) -> None:
        """The later one counts, whoever it was on."""

        async def story(s: Story) -> None:
            for name in order:
                s.opens(name, 1)
            await s.passes(1)
            for name in order:
                s.ends(name, 1)
                await s.passes(3)
            s.told("open 1")
            await s.passes(1)
            s.told()
            await s.passes(1)
            s.told("close 1")
            assert [(1000.0, 1004.0)] == s.journalled("opened_at, closed_at")

        tell(storage, story)

    def test_a_browser_that_comes_back_too_late_has_a_new_session(self, storage: Storage) -> None:
        """Told in order."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            await s.passes(1)
            s.ends("a", 1)
            await s.passes(5)
            s.opens("b", 1)
            await s.passes(3)
            s.told("open 1", "close 1", "open 1")
            assert 2 == len(s.journalled())

        tell(storage, story)

    def test_without_a_linger_it_is_closed_at_once(self, storage: Storage) -> None:
        """`SESSION_LINGER_S=0`."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            s.ends("a", 1)
            await s.passes(0)
            s.told("open 1", "close 1")

        tell(storage, story, linger_s=0)

    def test_a_hundred_reconnections_are_one_session(self, storage: Storage) -> None:
        """Between two nodes and two workers; nothing is told between."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            place = "a"
            for number in range(100):
                other = "ab"[number % 3 == 0]
                if number % 2:
                    s.opens(other, 1)
                    s.ends(place, 1)
                else:
                    s.ends(place, 1)
                    s.opens(other, 1)
                place = other
                await s.passes(number % 7 == 0)
            s.told("open 1")
            s.ends(place, 1)
            await s.passes(5)
            s.told("close 1")
            assert [(101,)] == s.journalled("connections")

        tell(storage, story)


class TestLosses:
    """Workers, processes and nodes that go."""

    def test_a_lost_worker_s_sessions_linger_like_others(self, storage: Storage) -> None:
        """With what was last heard of them."""

        async def story(s: Story) -> None:
            for session in (1, 2):
                s.opens("a", session)
            s.processes["a"].notebooks.tunnel_progressed(1, progressed(1))
            await s.passes(2)
            s.processes["a"].notebooks.worker_lost(1, 1002.0)
            await s.passes(2)
            s.opens("b", 2)
            await s.passes(3)
            s.told("open 1", "open 2", "close 1")
            columns = "closed_at, reason, bytes_up, messages_down, first_interaction_at, last_interaction_at"
            assert [
                (1002.0, "worker lost", 5, 2, 1000.25, 1000.5),
                (None,) * 6,
            ] == s.journalled(columns)

        tell(storage, story)

    def test_a_killed_process_s_sessions_are_closed_where_nobody_came_back(self, storage: Storage) -> None:
        """Within the time-out and the linger; those that moved live on."""

        async def story(s: Story) -> None:
            for session in (1, 2):
                s.opens("a", session)
            await s.passes(3)
            s.told("open 1", "open 2")
            await s.is_killed("a")
            await s.passes(1)
            s.opens("b", 2)
            await s.passes(15 + LINGER_S - 1)
            s.told("close 1")
            assert [key(2)] == [*s.api.active]

        tell(storage, story)

    def test_a_crash_during_the_linger_closes_once(self, storage: Storage) -> None:
        """With the true end, which the journal knows."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            await s.passes(2)
            s.ends("a", 1)
            await s.passes(2)
            await s.is_killed("a")
            await s.passes(15 + LINGER_S)
            s.told("open 1", "close 1")
            assert [(1000.0, 1002.0, "browser closed")] == s.journalled()

        tell(storage, story)

    def test_a_restart_closes_nothing_that_comes_back(self, storage: Storage) -> None:
        """What does not is closed by the next process, when it has waited."""

        async def story(s: Story) -> None:
            for session in (1, 2, 3):
                s.opens("a", session)
            await s.passes(2)
            s.ends("a", 3)
            await s.passes(1)
            await s.stops("a")
            await s.starts("a")
            await s.passes(1)
            s.opens("a", 2)
            await s.passes(LINGER_S - 2)
            s.told("open 1", "open 2", "open 3")
            await s.passes(3 + 3)
            s.told_in_any_order("close 1", "close 3")
            assert [(1003.0, "proxy stopped"), (None, None), (1002.0, "browser closed")] == s.journalled(
                "closed_at, reason"
            )

        tell(storage, story, starts="a")

    def test_a_node_that_stops_leaves_its_sessions_to_the_other(self, storage: Storage) -> None:
        """Which ends those that do not come."""

        async def story(s: Story) -> None:
            for session in (1, 2):
                s.opens("a", session)
            await s.passes(1)
            await s.stops("a")
            s.opens("b", 1)
            await s.passes(LINGER_S + 3 + 3)
            s.told("open 1", "open 2", "close 2")

        tell(storage, story)

    @pytest.mark.parametrize("moved", [False, True])
    def test_a_process_that_stood_still_sends_nothing_stale(self, storage: Storage, *, moved: bool) -> None:
        """It had a close to send; meanwhile the session is another's."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            await s.passes(1)
            s.api.mood = "down"
            s.ends("a", 1)
            await s.passes(LINGER_S)
            s.stands_still("a")
            s.api.mood = "up"
            await s.passes(30)
            s.told("open 1", "close 1")
            if moved:
                s.opens("b", 1)
                await s.passes(3)
                s.told("open 1")
            # It wakes, and its delivery has the first turn.
            await deliver(s.processes["a"].notebooks._delivery)
            s.told()
            s.stands_still("a", still=False)
            await s.passes(30)
            s.told()

        tell(storage, story)


class TestReports:
    """An API that fails, and tokens that do not last."""

    def test_what_is_told_late_is_told_in_order(self, storage: Storage) -> None:
        """Whatever happened while the API was away."""

        async def story(s: Story) -> None:
            s.api.mood = "down"
            for _ in range(3):
                s.opens("a", 1)
                await s.passes(1)
                s.ends("a", 1)
                await s.passes(6)
            s.opens("b", 1)
            s.opens("b", 2)
            await s.passes(60)
            s.told()
            s.api.mood = "up"
            await s.passes(90)
            assert ["open 2"] == [f"{w} 2" for w, one in s.api.told if one == key(2)]
            assert ["open", "close"] * 3 + ["open"] == [w for w, one in s.api.told if one == key(1)]

        tell(storage, story)

    def test_an_answer_that_is_lost_is_asked_for_again(self, storage: Storage) -> None:
        """At least once; the order holds."""

        async def story(s: Story) -> None:
            s.api.mood = "answer lost"
            s.opens("a", 1)
            await s.passes(1)
            s.ends("a", 1)
            await s.passes(6)
            s.api.mood = "up"
            await s.passes(60)
            what = [what for what, _ in s.api.told]
            assert 2 <= what.index("close") == what.count("open")
            assert set() == s.api.active

        tell(storage, story)

    @pytest.mark.parametrize("place", ["a plain request", "another notebook"])
    def test_an_open_whose_token_expired_goes_with_the_user_s_next(
        self, storage: Storage, place: str
    ) -> None:
        """Of the same user, wherever on this node it was accepted."""

        async def story(s: Story) -> None:
            s.api.mood = "down"
            s.opens("a", 1, token="t1")
            await s.passes(90, step=5)
            s.api.mood, s.api.expired = "up", {"t1"}
            s.accepts("a", "t of bert", user="bert")
            await s.passes(90, step=5)
            s.told()
            if place == "a plain request":
                s.accepts("a", "t2")
                await s.passes(0)
                s.told("open 1")
            else:
                s.opens("a", 2, token="t2")
                await s.passes(0)
                assert {key(1), key(2)} == s.api.active
            assert [("delivered",)] == s.storage.rows("SELECT DISTINCT state FROM reports")

        tell(storage, story)

    def test_an_open_that_finds_no_token_for_an_hour_is_recorded_as_not_delivered(
        self, storage: Storage
    ) -> None:
        """Its close is told at its time; somebody who comes back later is told of again."""

        async def story(s: Story) -> None:
            s.api.expired = {"t1"}
            s.opens("a", 1)
            await s.passes(3500, step=20)
            assert [("pending",)] == s.storage.rows("SELECT state FROM reports")
            await s.passes(200, step=20)
            assert [("not delivered",)] == s.storage.rows("SELECT state FROM reports")
            s.told()
            s.opens("a", 1, token="t2")
            await s.passes(1)
            s.told("open 1")
            for _ in range(2):
                s.ends("a", 1)
            await s.passes(5)
            s.told("close 1")

        tell(storage, story, starts="a")

    def test_an_open_dies_with_its_process_and_its_user_s_token(self, storage: Storage) -> None:
        """It is recorded as not delivered; when the user comes back, the session is told of."""

        async def story(s: Story) -> None:
            s.api.mood = "down"
            s.opens("a", 1)
            await s.passes(1)
            await s.is_killed("a")
            s.opens("b", 2, user="bert")
            s.api.mood = "up"
            await s.passes(15)
            s.opens("b", 1)
            await s.passes(15)
            assert {key(1), key(2)} == s.api.active

        tell(storage, story)

    def test_an_open_of_the_dead_is_told_by_who_carries_the_session(self, storage: Storage) -> None:
        """Not recorded as lost by another one that has no token."""

        async def story(s: Story) -> None:
            await s.starts("c")
            s.api.mood = "down"
            s.opens("a", 1)
            await s.passes(1)
            s.opens("c", 1)
            await s.is_killed("a")
            s.api.mood = "up"
            await s.passes(60)
            s.told("open 1")
            assert [("delivered",)] == s.storage.rows("SELECT state FROM reports")

        tell(storage, story)

    def test_an_instance_that_is_not_the_user_s_any_more_is_not_asked_about_again(
        self, storage: Storage
    ) -> None:
        """The open is refused, for good."""

        async def story(s: Story) -> None:
            s.api.gone = {7}
            s.opens("a", 1)
            await s.passes(90, step=5)
            assert 1 == s.api.asked
            assert [("refused",)] == s.storage.rows("SELECT state FROM reports")

        tell(storage, story)


class TestFigures:
    """What is kept of a long session."""

    def test_progress_is_in_the_journal_before_the_end(self, storage: Storage) -> None:
        """So that a crash loses little of it."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            s.processes["a"].notebooks.tunnel_progressed(1, progressed(1, messages_up=1))
            await s.passes(1)
            s.processes["a"].notebooks.tunnel_progressed(1, progressed(1, messages_up=9))
            s.processes["a"].notebooks.tunnel_progressed(1, progressed(99))
            await s.passes(1)
            assert [(5, 6, 9, 2)] == s.journalled("bytes_up, bytes_down, messages_up, messages_down")
            await s.is_killed("a")
            await s.passes(20)
            assert [(5, 6, 9, 2, "owner lost")] == s.journalled(
                "bytes_up, bytes_down, messages_up, messages_down, reason"
            )

        tell(storage, story)

    def test_all_connections_of_a_session_add_up(self, storage: Storage) -> None:
        """From the first interaction to the last."""

        async def story(s: Story) -> None:
            s.opens("a", 1)
            s.opens("b", 1)
            s.processes["a"].notebooks.tunnel_progressed(1, progressed(1))
            await s.passes(1)
            s.ends("a", 1)
            s.ends("b", 1)
            await s.passes(LINGER_S)
            s.told("open 1", "close 1")
            assert [(22, 44, 2)] == s.journalled("bytes_up, bytes_down, connections")

        tell(storage, story)
