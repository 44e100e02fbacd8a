"""Notebook sessions from the tunnel's message to the VISA API: when they open, close and are reported."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from support.delivering import deliver
from support.sessions import TOKEN, Clock, ended, key, opened, rows
from support.visa_api import Answer, Hold, VisaApiServer
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.backlog import LARGEST
from visa_jupyter_proxy.control.journal.records import Ended
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi

FILE = "journal.sqlite3"


@asynccontextmanager
async def visa() -> AsyncIterator[tuple[VisaApiServer, VisaApi]]:
    """Serve a VISA API with instance 7 of anna, and its client."""
    async with VisaApiServer() as server:
        server.user(TOKEN, "anna")
        server.instance(7, owner="anna")
        api = VisaApi(server.url, ca_file=None, timeout_s=30)
        try:
            yield server, api
        finally:
            await api.close()


class Node:
    """A control process's notebooks, driven step by step, with a clock of its own."""

    def __init__(
        self, directory: Path, api: VisaApi, *, linger_s: float = 0.0, largest_backlog: int = LARGEST
    ) -> None:
        self.clock = Clock()
        self.journal = Journal(directory)
        self.notebooks = Notebooks(
            self.journal,
            api,
            linger_s=linger_s,
            monotonic=self.clock,
            wall=lambda: 2000.0,
            jitter=lambda: 0.0,
            largest_backlog=largest_backlog,
        )

    async def settle(self) -> None:
        """Write, deliver, and write what came of it."""
        await self.notebooks.step()
        await deliver(self.notebooks._delivery)
        await self.notebooks.step()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps of a heartbeat."""
        for _ in range(int(seconds / 3)):
            self.clock.now += 3
            await self.settle()


@asynccontextmanager
async def nodes(
    directory: Path, api: VisaApi, count: int = 1, *, linger_s: float = 0.0, **options: int
) -> AsyncIterator[list[Node]]:
    """Make control processes on one directory, each after its first step."""
    async with AsyncExitStack() as stack:
        made = [Node(directory, api, linger_s=linger_s, **options) for _ in range(count)]
        for node in made:
            stack.push_async_callback(node.journal.close)
            await node.notebooks.step()
        yield made


def scenario(test: Callable[[Path, VisaApiServer, VisaApi], Awaitable[None]]) -> Callable[[Path], None]:
    """Run an asynchronous test against a VISA API."""

    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with visa() as (server, api):
                await test(tmp_path, server, api)

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def calls(server: VisaApiServer) -> list[tuple[str | None, int, str, str]]:
    """Give what the API was told, in order."""
    return [(request.endpoint, *request.key) for request in server.requests]


@scenario
async def test_a_session_is_reported_open_and_closed(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """Open with the user's token, close without; the journal has both as delivered."""
    async with nodes(directory, api) as (node,):
        node.notebooks.tunnel_opened(1, opened(1))
        await node.settle()
        assert [(7, "kernel-1", "session-1")] == server.active()
        node.notebooks.tunnel_ended(1, ended(1))
        await node.settle()
        assert [("open", TOKEN), ("close", None)] == [(r.endpoint, r.token) for r in server.requests]
        assert [] == server.active()
        assert [("open", "delivered", 1), ("close", "delivered", 1)] == rows(
            directory / FILE, "SELECT kind, state, attempts FROM reports ORDER BY number"
        )


@scenario
async def test_a_session_is_open_while_any_connection_carries_it(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """Two connections, on two workers: one open; the end of the first changes nothing."""
    async with nodes(directory, api) as (node,):
        node.notebooks.tunnel_opened(1, opened(1, key(1)))
        node.notebooks.tunnel_opened(2, opened(1, key(1)))
        await node.settle()
        node.notebooks.tunnel_ended(1, ended(1))
        await node.settle()
        assert [("open", 7, "kernel-1", "session-1")] == calls(server)
        node.notebooks.tunnel_ended(2, ended(1))
        await node.settle()
        assert ["open", "close"] == [call[0] for call in calls(server)]


@scenario
async def test_a_lost_worker_ends_its_connections_and_no_others(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """A session that another worker carries too stays open."""
    async with nodes(directory, api) as (node,):
        for tunnel in (1, 2):
            node.notebooks.tunnel_opened(1, opened(tunnel))
        node.notebooks.tunnel_opened(2, opened(1, key(2)))
        node.notebooks.worker_lost(1, 1003.0)
        await node.settle()
        assert [(7, "kernel-2", "session-2")] == server.active()
        assert [("worker lost", None), ("worker lost", None), (None, None)] == rows(
            directory / FILE, "SELECT reason, bytes_up FROM connections ORDER BY worker, tunnel"
        )


@scenario
async def test_a_session_that_was_over_before_it_was_written_is_reported_with_its_token(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """A short connection is a session like any other."""
    async with nodes(directory, api) as (node,):
        node.notebooks.tunnel_opened(1, opened(1))
        node.notebooks.tunnel_ended(1, ended(1))
        await node.settle()
        assert [("open", TOKEN), ("close", None)] == [(r.endpoint, r.token) for r in server.requests]


@scenario
async def test_messages_that_make_no_sense_change_nothing(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """An unknown tunnel's end, and a tunnel that opens twice."""
    async with nodes(directory, api) as (node,):
        node.notebooks.tunnel_ended(1, ended(1))
        node.notebooks.tunnel_opened(1, opened(1))
        node.notebooks.tunnel_opened(1, opened(1, key(2)))
        await node.settle()
        assert [("open", 7, "kernel-1", "session-1")] == calls(server)


@scenario
async def test_an_id_that_visa_cannot_keep_is_journalled_and_not_reported(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """Missing, too long or unprintable; long ones stay apart although they are shortened."""
    odd = [("k", ""), ("", "s"), ("k" * 151, "s"), ("k" * 151 + "x", "s"), ("k", "s\0"), ("k", "\udc80")]
    async with nodes(directory, api) as (node,):
        for tunnel, ids in enumerate(odd):
            node.notebooks.tunnel_opened(1, opened(tunnel, NotebookKey(7, *ids)))
        await node.settle()
        node.notebooks.worker_lost(1, 1003.0)
        await node.settle()
        assert [] == server.requests
        assert [(6, 6)] == rows(directory / FILE, "SELECT count(*), count(closed_at) FROM sessions")


@scenario
async def test_five_hundred_sessions_at_once_are_five_hundred_rows(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """And five hundred opens at the API, with the writer and the delivery in the background."""
    journal = Journal(directory)
    notebooks = Notebooks(journal, api, linger_s=0.0)
    await notebooks.start()
    for tunnel in range(500):
        notebooks.tunnel_opened(tunnel % 4, opened(tunnel))
    await server.until(lambda: len(server.active()) == 500)
    assert [(500,)] == rows(directory / FILE, "SELECT count(*) FROM sessions")
    await notebooks.stop(30)
    assert [] == server.active()
    assert [("delivered", 1000)] == rows(
        directory / FILE, "SELECT state, count(*) FROM reports GROUP BY state"
    )


class TestTwoProcesses:
    """Two control processes on one directory."""

    def test_a_session_moves_without_being_closed(self, tmp_path: Path) -> None:
        """It is opened once, by the first, and closed once, by the last that carries it."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api, 2) as (a, b):
                a.notebooks.tunnel_opened(1, opened(1))
                await a.settle()
                b.notebooks.tunnel_opened(1, opened(1))
                await b.settle()
                a.notebooks.tunnel_ended(1, ended(1))
                await a.settle()
                assert ["open"] == [call[0] for call in calls(server)]
                b.notebooks.tunnel_ended(1, ended(1))
                await b.settle()
                assert ["open", "close"] == [call[0] for call in calls(server)]

        run(tmp_path)

    def test_an_open_waits_for_the_other_process_s_close(self, tmp_path: Path) -> None:
        """Otherwise the late close would end the session that has just begun."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api, 2) as (a, b):
                a.notebooks.tunnel_opened(1, opened(1))
                await a.settle()
                a.notebooks.tunnel_ended(1, ended(1))
                await a.notebooks.step()
                b.notebooks.tunnel_opened(1, opened(1))
                await b.settle()
                assert ["open"] == [call[0] for call in calls(server)]
                await a.settle()
                await b.pass_time(3)
                assert ["open", "close", "open"] == [call[0] for call in calls(server)]
                assert [(7, "kernel-1", "session-1")] == server.active()

        run(tmp_path)

    def test_the_dead_are_noticed_by_the_observers_own_clock(self, tmp_path: Path) -> None:
        """Fifteen seconds without a heartbeat; a session that lives here is not closed."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api, 2) as (a, b):
                for tunnel in (1, 2):
                    a.notebooks.tunnel_opened(1, opened(tunnel))
                await a.settle()
                b.notebooks.tunnel_opened(1, opened(2))
                await b.pass_time(12)
                assert ["open", "open"] == [call[0] for call in calls(server)]
                await b.pass_time(6)
                assert [(7, "kernel-2", "session-2")] == server.active()
                assert [("owner lost",), ("owner lost",), (None,)] == rows(
                    directory / FILE, "SELECT reason FROM connections ORDER BY reason IS NULL"
                )

        run(tmp_path)

    def test_a_process_that_was_declared_dead_declares_what_it_carries(self, tmp_path: Path) -> None:
        """A machine that was suspended: its live sessions are open again, as those of a new owner."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api, 2) as (a, b):
                for tunnel in (1, 2):
                    a.notebooks.tunnel_opened(1, opened(tunnel))
                await a.settle()
                old = a.notebooks.owner
                await b.pass_time(18)
                assert [] == server.active()
                a.notebooks.tunnel_ended(1, ended(2))
                await a.settle()
                assert [(7, "kernel-1", "session-1")] == server.active()
                assert old != a.notebooks.owner
                await b.pass_time(3)
                assert [(7, "kernel-1", "session-1")] == server.active()

        run(tmp_path)

    def test_an_open_that_the_dead_left_is_sent_by_who_has_a_token(self, tmp_path: Path) -> None:
        """The browser has come back here with one; for the other user's session there is none."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api, 2) as (a, b):
                for tunnel, user in ((1, "bert"), (2, "anna")):
                    a.notebooks.tunnel_opened(1, opened(tunnel, user=user))
                await a.notebooks.step()
                b.notebooks.tunnel_opened(1, opened(2))
                await b.pass_time(18)
                assert [
                    ("close", 7, "kernel-1", "session-1"),
                    ("open", 7, "kernel-2", "session-2"),
                ] == sorted(calls(server))
                assert [("open", "delivered"), ("open", "not delivered")] == rows(
                    directory / FILE, "SELECT kind, state FROM reports WHERE kind = 'open' ORDER BY state"
                )

        run(tmp_path)


class TestStopping:
    """What `stop` does, and what it leaves."""

    def test_everything_is_written_and_delivered(self, tmp_path: Path) -> None:
        """Open connections end, and the owner's row says that it has stopped."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            notebooks = Notebooks(Journal(directory), api, linger_s=0.0)
            await notebooks.start()
            notebooks.tunnel_opened(1, opened(1))
            await notebooks.stop(30)
            assert ["open", "close"] == [call[0] for call in calls(server)]
            assert [("proxy stopped",)] == rows(directory / FILE, "SELECT reason FROM connections")
            assert [(0,)] == rows(directory / FILE, "SELECT count(*) FROM owners WHERE stopped_at IS NULL")

        run(tmp_path)

    def test_what_cannot_be_delivered_is_adopted_by_the_next(self, tmp_path: Path) -> None:
        """A close is never given up; the next process sends it at once."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            hang = Hold()
            server.always("close", Answer(hold=hang, reset=True))
            notebooks = Notebooks(Journal(directory), api, linger_s=0.0)
            await notebooks.start()
            notebooks.tunnel_opened(1, opened(1))
            await server.until(server.active)
            await notebooks.stop(0.2)
            assert [("close", "pending")] == rows(
                directory / FILE, "SELECT kind, state FROM reports WHERE state != 'delivered'"
            )
            hang.release()
            server.always("close", None)
            async with nodes(directory, api) as (node,):
                await node.settle()
            assert [] == server.active()

        run(tmp_path)

    def test_stop_ends_without_start_and_without_a_store(self, tmp_path: Path) -> None:
        """Whatever is broken, the process can exit."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            (directory / "file").touch()
            notebooks = Notebooks(Journal(directory / "file"), api)
            notebooks.tunnel_opened(1, opened(1))
            await notebooks.stop(1)
            assert [] == server.requests

        run(tmp_path)


class TestBrokenStore:
    """The journal cannot be written."""

    def test_reports_go_out_all_the_same_and_records_wait(self, tmp_path: Path) -> None:
        """And are written when the store is back, with what became of their reports."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory / "data", api) as (node,):
                (directory / "data").rename(directory / "away")
                (directory / "data").touch()
                node.notebooks.tunnel_opened(1, opened(1))
                node.notebooks.tunnel_opened(1, opened(2))
                await node.settle()
                node.notebooks.tunnel_ended(1, ended(1))
                await node.settle()
                assert [(7, "kernel-2", "session-2")] == server.active()
                (directory / "data").unlink()
                (directory / "away").rename(directory / "data")
                await node.settle()
                assert [(1001.0,), (None,)] == rows(
                    directory / "data" / FILE, "SELECT closed_at FROM sessions ORDER BY closed_at IS NULL"
                )
                assert [("delivered", 3)] == rows(
                    directory / "data" / FILE, "SELECT state, count(*) FROM reports GROUP BY state"
                )
                assert 3 == len(server.requests)

        run(tmp_path)

    def test_a_session_with_two_connections_is_told_once_without_the_store(self, tmp_path: Path) -> None:
        """What this process knows decides: one open, and no close before the last has ended."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            (directory / "data").touch()
            async with nodes(directory / "data", api) as (node,):
                for tunnel in (1, 2):
                    node.notebooks.tunnel_opened(1, opened(tunnel, key(1)))
                await node.settle()
                node.notebooks.tunnel_ended(1, ended(1))
                await node.settle()
                assert ["open"] == [call[0] for call in calls(server)]
                node.notebooks.tunnel_ended(1, ended(2))
                await node.settle()
                assert ["open", "close"] == [call[0] for call in calls(server)]

        run(tmp_path)

    def test_the_fault_is_logged_once_and_so_is_its_end(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """However often writing is tried."""

        @scenario
        async def run(directory: Path, _server: VisaApiServer, api: VisaApi) -> None:
            (directory / "data").touch()
            async with nodes(directory / "data", api) as (node,):
                for tunnel in range(5):
                    node.notebooks.tunnel_opened(1, opened(tunnel))
                    await node.settle()
                (directory / "data").unlink()
                await node.settle()
                await node.settle()

        run(tmp_path)
        out = capsys.readouterr().err
        assert 1 == out.count("cannot be written")
        assert 1 == out.count("can be written again")
        assert TOKEN not in out

    def test_memory_is_bounded_and_losses_are_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The oldest finished go; the open sessions and all reports are kept."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            (directory / "data").touch()
            async with nodes(directory / "data", api, largest_backlog=20) as (node,):
                node.notebooks.tunnel_opened(1, opened(1))
                for tunnel in range(2, 32):
                    node.notebooks.tunnel_opened(1, opened(tunnel))
                    node.notebooks.tunnel_ended(1, ended(tunnel))
                await node.settle()
                assert 61 == len(server.requests)
                (directory / "data").unlink()
                await node.settle()
            assert [("kernel-1",)] == rows(
                directory / "data" / FILE, "SELECT kernel_id FROM sessions WHERE closed_at IS NULL"
            )

        run(tmp_path)
        assert "records are lost" in capsys.readouterr().err

    def test_a_journal_that_is_lost_is_begun_anew_with_what_is_open(self, tmp_path: Path) -> None:
        """The files are deleted under a running process: nothing is reported twice, closes still come."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api) as (node,):
                node.notebooks.tunnel_opened(1, opened(1))
                await node.settle()
                for file in list(directory.iterdir()):  # noqa: ASYNC240 -- nothing else runs in this loop
                    file.unlink()
                await node.pass_time(3)
                assert [("kernel-1",)] == rows(directory / FILE, "SELECT kernel_id FROM sessions")
                node.notebooks.tunnel_ended(1, ended(1))
                await node.settle()
                assert ["open", "close"] == [call[0] for call in calls(server)]

        run(tmp_path)

    def test_garbage_is_set_aside_and_writing_goes_on(self, tmp_path: Path) -> None:
        """The store heals by itself at the next attempt."""

        @scenario
        async def run(directory: Path, server: VisaApiServer, api: VisaApi) -> None:
            (directory / FILE).write_bytes(b"garbage" * 1000)
            async with nodes(directory, api) as (node,):
                node.notebooks.tunnel_opened(1, opened(1))
                await node.pass_time(3)
                assert [(7, "kernel-1", "session-1")] == server.active()
                assert [("kernel-1",)] == rows(directory / FILE, "SELECT kernel_id FROM sessions")
                assert 1 == len(list(directory.glob("*.damaged-*")))  # noqa: ASYNC240 -- nothing else runs in this loop

        run(tmp_path)

    def test_a_record_that_can_never_be_written_holds_up_no_other(self, tmp_path: Path) -> None:
        """It is left out, with a log line; it is a defect of ours."""

        @scenario
        async def run(directory: Path, _server: VisaApiServer, api: VisaApi) -> None:
            async with nodes(directory, api) as (node,):
                node.notebooks.tunnel_opened(1, opened(1))
                node.notebooks.tunnel_opened(1, opened(2, NotebookKey(2**64, "k", "s")))
                node.notebooks.tunnel_opened(1, opened(3))
                await node.settle()
                assert [("kernel-1",), ("kernel-3",)] == rows(
                    directory / FILE, "SELECT kernel_id FROM sessions ORDER BY kernel_id"
                )

        run(tmp_path)


CHILD = """
import asyncio, sys
sys.path[:0] = [sys.argv[3]]
from support.delivering import deliver
from support.sessions import opened
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.records import Ended
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.visa_api import VisaApi

async def main():
    api = VisaApi(sys.argv[2], ca_file=None, timeout_s=10)
    notebooks = Notebooks(Journal(sys.argv[1]), api)
    await notebooks.start()
    for tunnel in range(100):
        notebooks.tunnel_opened(1, opened(tunnel))
    await notebooks.step()
    print("written", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@scenario
async def test_a_killed_process_s_sessions_are_closed_by_the_next(
    directory: Path, server: VisaApiServer, api: VisaApi
) -> None:
    """Kill -9 with a hundred open sessions and the API down; exactly those that moved on stay open."""
    server.down()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, directory, server.url, Path(__file__).parent, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        line = b""
        while line != b"written\n":
            line = await child.stdout.readline()
            assert line, "the child has ended"
    child.send_signal(signal.SIGKILL)
    await child.wait()
    server.up()
    async with nodes(directory, api, 2) as (fresh, other):
        for tunnel in (3, 5):
            other.notebooks.tunnel_opened(1, opened(tunnel))
        for _ in range(7):
            for node in (fresh, other):
                await node.pass_time(3)
        closed = [request.key for request in server.asked("close")]
        expected = {(7, f"kernel-{n}", f"session-{n}") for n in range(100)}
        alive = {(7, f"kernel-{n}", f"session-{n}") for n in (3, 5)}
        assert expected - alive == set(closed)
        assert 98 == len(closed)
        assert [(100, 98)] == rows(directory / FILE, "SELECT count(*), count(closed_at) FROM sessions")
        assert [(0,)] == rows(directory / FILE, "SELECT count(*) FROM reports WHERE state = 'pending'")


class TestLedger:
    """What is open here."""

    def test_no_repr_shows_a_token(self) -> None:
        """Neither a record's nor a connection's."""
        ledger = Ledger()
        record = ledger.opened(1, opened(1))
        assert TOKEN == ledger.token(key(1))
        assert TOKEN not in repr(record) + repr(vars(ledger))

    def test_a_connection_does_not_end_before_it_begins(self) -> None:
        """Clocks are set back."""
        ledger = Ledger()
        ledger.opened(1, opened(1, at=50.0))
        record = ledger.ended(1, ended(1, at=40.0), 0.0)
        assert isinstance(record, Ended)
        assert 50.0 == record.at
