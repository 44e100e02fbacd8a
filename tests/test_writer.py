"""The writer of the journal: when it writes, whom it trusts, and what it decides by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from support.sessions import Clock, ended, opened
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.records import Due, Record, ReportState, Settled
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.writer import OWNER_TIMEOUT_S, Writer


class Author:
    """Whose records are written; it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.beats = 0

    def due(self, _record: Record, due: Due) -> None:
        """Note it."""
        self.told.append(f"due {due.kind}")

    def adopted(self, due: Due) -> None:
        """Note it."""
        self.told.append(f"adopted {due.kind}")

    def release(self, record: Record) -> None:
        """Note it."""
        self.told.append(f"released {type(record).__name__}")

    def declare(self, *, but: Collection[str], anew: bool) -> list[Record]:  # noqa: ARG002 -- the interface of `Author`
        """Carry nothing."""
        return []

    def reborn(self) -> None:
        """Note it."""
        self.told.append("reborn")

    def beaten(self) -> None:
        """Count it."""
        self.beats += 1

    def blocked(self) -> list[str]:
        """Have nothing that waits."""
        return []

    def unblock(self, but: Collection[str]) -> None:
        """Never happens."""


class Desk:
    """A writer, its author, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.author = Author()
        self.ledger = Ledger()
        self.journal = Journal(directory)
        self.ended: list[Ending] = []
        self.writer = Writer(
            self.journal,
            self.author,
            linger_s=5.0,
            owner_timeout_s=OWNER_TIMEOUT_S,
            monotonic=self.clock,
            wall=lambda: 2000.0,
            end=self.ended.extend,
        )

    def opens(self, tunnel: int) -> None:
        """Add the record of a connection."""
        self.writer.add(*self.ledger.opened(1, opened(tunnel)) or ())

    def ends(self, tunnel: int) -> None:
        """Add the record of its end."""
        record = self.ledger.ended(1, ended(tunnel), self.clock.now)
        assert record is not None
        self.writer.add(record)


def run(directory: Path, test: Callable[[Desk], Awaitable[None]]) -> None:
    """Run a test at a desk."""

    async def main() -> None:
        desk = Desk(directory)
        try:
            await test(desk)
        finally:
            await desk.journal.close()

    asyncio.run(main())


def settled(number: int) -> Settled:
    """Give the record of a report that was delivered."""
    return Settled(f"r{number}", ReportState.DELIVERED, 1, 2000.0)


class TestWhen:
    """What is urgent, and what can wait for others."""

    def test_what_makes_a_report_due_is_written_at_once(self, tmp_path: Path) -> None:
        """And then there is nothing to do until the next heartbeat."""

        async def test(desk: Desk) -> None:
            assert 0.0 == desk.writer.next_at()
            await desk.writer.step()
            assert 3.0 == desk.writer.next_at()
            desk.opens(1)
            assert desk.clock.now > desk.writer.next_at()
            await desk.writer.step()
            assert (["due open"], 0, 3.0) == (desk.author.told, desk.writer.waiting, desk.writer.next_at())

        run(tmp_path, test)

    def test_a_crowd_is_written_together(self, tmp_path: Path) -> None:
        """Between two transactions is a tenth of a second, and each takes all that has gathered."""

        async def test(desk: Desk) -> None:
            await desk.writer.step()
            desk.opens(1)
            await desk.writer.step()
            desk.clock.now = 0.05
            for tunnel in range(2, 100):
                desk.opens(tunnel)
            assert (98, 0.1) == (desk.writer.waiting, desk.writer.next_at())
            desk.clock.now = 0.1
            await desk.writer.step()
            assert (99, 0) == (len(desk.author.told), desk.writer.waiting)
            for tunnel in range(100, 450):
                desk.opens(tunnel)
            await desk.writer.step()
            assert (449, 0, 3.0) == (len(desk.author.told), desk.writer.waiting, desk.writer.next_at())

        run(tmp_path, test)

    def test_what_makes_nothing_due_waits_for_others(self, tmp_path: Path) -> None:
        """For half a second: a transaction for each report that was delivered would be too many."""

        async def test(desk: Desk) -> None:
            await desk.writer.step()
            desk.clock.now = 1.0
            desk.writer.add(settled(1))
            desk.clock.now = 1.25
            desk.writer.add(settled(2))
            assert (2, 1.5) == (desk.writer.waiting, desk.writer.next_at())
            desk.opens(1)
            await desk.writer.step()
            assert (0, 3.0) == (desk.writer.waiting, desk.writer.next_at())

        run(tmp_path, test)


class TestTrust:
    """Whether others can have taken this owner for dead."""

    def test_alone_it_trusts_and_decides_without_the_journal(self, tmp_path: Path) -> None:
        """The only owner of a file that cannot be written."""

        async def test(desk: Desk) -> None:
            desk.journal = desk.writer._journal = Journal(tmp_path / "file")
            (tmp_path / "file").touch()
            desk.opens(1)
            await desk.writer.step()
            assert desk.writer.is_failing
            desk.ends(1)
            assert ["released Opened", "released Ended"] == desk.author.told
            desk.clock.now = desk.writer.next_at()
            await desk.writer.step()  # fails again, and nobody goes over all that waits
            assert ["released Opened", "released Ended"] == desk.author.told
            desk.clock.now = 1000.0
            assert desk.writer.is_trusted

        run(tmp_path, test)

    def test_with_others_about_nothing_is_decided_and_trust_runs_out(self, tmp_path: Path) -> None:
        """Half the time after which they take it for dead; a heartbeat brings it back."""

        async def test(desk: Desk) -> None:
            other = Desk(tmp_path / "data")
            desk.journal = desk.writer._journal = Journal(tmp_path / "data")
            desk.writer._neighbours._journal = desk.journal
            await other.writer.step()
            await desk.writer.step()
            assert (False, True) == (desk.writer.decides, desk.writer.is_trusted)
            (tmp_path / "data").rename(tmp_path / "away")
            (tmp_path / "data").touch()
            desk.opens(1)
            desk.clock.now = OWNER_TIMEOUT_S / 2
            await desk.writer.step()
            assert ([], True, False) == (desk.author.told, desk.writer.is_failing, desk.writer.is_trusted)
            (tmp_path / "data").unlink()
            (tmp_path / "away").rename(tmp_path / "data")
            beats = desk.author.beats
            await desk.writer.step()
            await other.journal.close()
            assert (["due open"], beats, True) == (
                desk.author.told,
                desk.author.beats - 1,
                desk.writer.is_trusted,
            )

        run(tmp_path, test)
