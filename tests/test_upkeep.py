"""What 3.5 has left is closed once, and what is too old is deleted, whatever comes in between."""

import asyncio
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.log import log_kept
from support.sessions import ended as ended_message
from support.sessions import key, opened
from support.storage import Storage
from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control import original
from visa_jupyter_proxy.control.journal.errors import JournalError
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.upkeep import Upkeep
from visa_jupyter_proxy.mailbox import NotebookKey


def entry(number: int = 1, **fields: object) -> dict[str, object]:
    """Give a session as 3.5 keeps it."""
    one = key(number)
    return {"instanceId": one.instance_id, "kernel": one.kernel_id, "sessionId": one.session_id} | fields


def store(directory: Path, *entries: object, name: str | None = None, at: float = 2000.0) -> Path:
    """Write the file as 3.5 does."""
    directory.mkdir(exist_ok=True)
    path = original.file_in(directory) if name is None else directory / name
    path.write_text(json.dumps({"key": "instanceNotebookSessions", "value": entries}, separators=(",", ":")))
    os.utime(path, (at, at))
    return path


class TestFile:
    """The file of 3.5."""

    def test_every_session_is_there_once(self, tmp_path: Path) -> None:
        """3.5 writes one for each connection; what is no session does not hide those that are."""
        wrong = [entry(instanceId="7"), entry(instanceId=True), entry(instanceId=-1), entry(kernel=None)]
        wrong += [entry(sessionId=""), entry(kernel="k" * 151), entry(instanceId=2**64)]
        path = store(tmp_path, entry(1), entry(2), entry(1), None, *wrong, 7)
        left = original.read(path)
        assert ((key(1), key(2)), 9, 2000.0) == (left.keys, left.unusable, left.at)

    def test_the_state_of_a_file_has_an_id(self, tmp_path: Path) -> None:
        """The same for the same file, another when 3.5 has written it again."""
        ids = [original.read(store(tmp_path, entry(1), at=at)).id for at in (1.0, 1.0, 2.0)]
        ids.append(original.read(store(tmp_path, entry(2), at=2.0)).id)
        assert [True, False, False] == [ids[0] == one for one in ids[1:]]
        assert 32 == len(ids[0])

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0" * 100,
            b'{"key":"instanceNotebookSessions","value":[{"instanceId":7,',
            b'{"key":"instanceNotebookSessions"}',
            b'{"key":"instanceNotebookSessions","value":{}}',
            b'{"key":"another","value":[]}',
            b"[]",
            b'{"key":"instanceNotebookSessions","value":' + b"[" * 100_000,
            b'{"key":"instanceNotebookSessions","value":["\xff"]}',
        ],
    )
    def test_a_damaged_one(self, tmp_path: Path, content: bytes) -> None:
        """It is recognised, and refused in words."""
        original.file_in(tmp_path).write_bytes(content)
        (path,) = original.find(tmp_path)
        with pytest.raises(original.Damaged, match="it "):
            original.read(path)

    def test_it_is_found_by_what_is_in_it(self, tmp_path: Path) -> None:
        """Under any name; foreign files, and those that were read already, are left alone."""
        path = store(tmp_path, entry(), name="any")
        (tmp_path / "notes.txt").write_text("instanceNotebookSessions")
        (tmp_path / "other").write_text('{"key":"other","value":[]}')
        (tmp_path / "directory").mkdir()
        assert [path] == original.find(tmp_path)
        assert original.retire(path, "taken-over").name.startswith("any.taken-over-")
        assert [] == original.find(tmp_path) == original.find(tmp_path / "none")

    def test_the_journal_is_never_opened_by_hand(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To close it again would drop the locks that SQLite has on it, in the whole process."""
        for ending in ("", "-wal", "-shm"):
            (tmp_path / f"journal.sqlite3{ending}").touch()
        monkeypatch.setattr(Path, "open", None)
        assert [] == original.find(tmp_path)

    def test_nothing_is_replaced_when_it_is_renamed(self, tmp_path: Path) -> None:
        """Two in the same second have different names."""
        kept = [original.retire(store(tmp_path, entry(number)), "taken-over") for number in range(3)]
        assert [0, 1, 2] == [int(original.read(path).keys[0].kernel_id[-1]) for path in kept]

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """The way there and the way back; ids that VISA cannot have are left out."""
        path = tmp_path / "file"
        original.write(path, [key(1), NotebookKey(7, "", "s"), key(2)])
        assert (key(1), key(2)) == original.read(path).keys
        with pytest.raises(FileExistsError):
            original.write(path, [])
        assert [path] == list(tmp_path.iterdir())


@pytest.fixture
def upkeep(storage: Storage) -> Callable[..., Any]:
    """Do a piece of upkeep, at a certain time, as a process of its own would."""

    def do(work: str, *, now: float = 3000.0, days: int | None = None) -> None:
        async def act() -> None:
            journal = storage.journal()
            one = Upkeep(journal, storage.directory, linger_s=0, retention_days=days, wall=lambda: now)
            try:
                await getattr(one, work)()
            finally:
                await journal.close()

        asyncio.run(act())

    return do


def closes(storage: Storage) -> list[tuple[str, str]]:
    """Give the closes that are pending, and whose they are."""
    return storage.rows(
        "SELECT kernel_id, sessions.reason FROM reports JOIN sessions ON sessions.id = reports.session"
        " WHERE kind = 'close' AND state = 'pending' ORDER BY number"
    )


class TestTakeOver:
    """Coming from 3.5."""

    def test_its_sessions_are_to_be_closed(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """As if a process had left them; the file is kept."""
        path = store(storage.directory, entry(1), entry(2))
        content = path.read_bytes()
        upkeep("take_over")
        assert [("kernel-1", "left by 3.5"), ("kernel-2", "left by 3.5")] == closes(storage)
        (kept,) = storage.directory.glob("*.taken-over-*")
        assert content == kept.read_bytes()
        assert not path.exists()

        async def main() -> list[NotebookKey]:
            journal = storage.journal()
            try:
                await journal.register("me", "node", 1, 3000.0)
                return [due.key for due in await journal.adopt("me")]
            finally:
                await journal.close()

        assert [key(1), key(2)] == asyncio.run(main())

    def test_once(
        self, storage: Storage, upkeep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when it is killed, or may not rename the file, after the journal was written."""
        path = store(storage.directory, entry(1))

        def retire(*_: object) -> Path:
            raise PermissionError("read-only")

        with monkeypatch.context() as patched:
            patched.setattr(original, "retire", retire)
            for _ in range(2):
                with pytest.raises(PermissionError):
                    upkeep("take_over")
        upkeep("take_over")
        assert [("kernel-1", "left by 3.5")] == closes(storage)
        assert not path.exists()

    def test_what_lives_here_is_left_alone(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """A browser has come back meanwhile, or has come back and gone again."""
        self.write(storage, [1, 2], ended=[2], at=2500.0)
        store(storage.directory, entry(1), entry(2), entry(3), at=2000.0)
        upkeep("take_over")
        assert [("kernel-2", "gone"), ("kernel-3", "left by 3.5")] == closes(storage)

    def test_what_3_5_has_opened_again_is_closed(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """After a way back: what the journal knows of the session is older than the file."""
        self.write(storage, [1], ended=[1], at=1500.0)
        store(storage.directory, entry(1), at=2000.0)
        upkeep("take_over")
        assert [("kernel-1", "gone"), ("kernel-1", "left by 3.5")] == closes(storage)

    def test_more_than_fit_into_a_statement(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """A facility whose 3.5 has forgotten to forget."""
        store(storage.directory, *map(entry, range(9000)))
        upkeep("take_over")
        assert 9000 == len(closes(storage))

    def test_a_damaged_file_is_set_aside(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """With a line that says which, where it is now, and why; another file is read all the same."""
        log = io.StringIO()
        path = store(storage.directory, entry(1))
        path.write_bytes(path.read_bytes()[:-1])
        store(storage.directory, entry(2), name="other")
        with log_kept():
            logs.configure(stream=log)
            upkeep("take_over")
        (kept,) = storage.directory.glob("*.damaged-*")
        (line,) = (json.loads(line) for line in log.getvalue().splitlines() if "set aside" in line)
        assert ("error", str(path), str(kept)) == (line["level"], line["file"], line["kept_as"])
        assert "not JSON" in line["cause"]
        assert [("kernel-2", "left by 3.5")] == closes(storage)

    def test_a_journal_that_is_away(self, tmp_path: Path) -> None:
        """The file stays where it is, to be taken over later."""
        path = store(tmp_path, entry(1))
        (tmp_path / "journal.sqlite3").mkdir()

        async def main() -> None:
            journal = Storage(tmp_path).journal()
            with pytest.raises(JournalError):
                await Upkeep(journal, tmp_path, linger_s=0, retention_days=None).take_over()
            await journal.close()

        asyncio.run(main())
        assert path.exists()

    @staticmethod
    def write(storage: Storage, numbers: list[int], *, ended: list[int], at: float) -> None:
        """Have these sessions in the journal."""

        async def main() -> None:
            journal, ledger = storage.journal(), Ledger()
            records = [record for n in numbers for record in ledger.opened(1, opened(n, at=at)) or ()]
            for number in ended:
                over = ledger.ended(1, ended_message(number, at=at, reason="gone"), 0.0)
                records += [] if over is None else [over]
            await journal.register("me", "node", 1, at)
            await journal.write("me", records)
            await journal.close()

        asyncio.run(main())


class TestRetention:
    """SESSION_RETENTION_DAYS."""

    def test_old_sessions_go(self, storage: Storage, upkeep: Callable[..., Any]) -> None:
        """Days after their end, when VISA knows of it; without the setting nothing ever goes."""
        TestTakeOver.write(storage, [1, 2, 3], ended=[1, 2], at=0.0)
        storage.script("UPDATE reports SET state = 'delivered' WHERE kind = 'open'")
        storage.script(
            "UPDATE reports SET state = 'delivered' WHERE session IN"
            " (SELECT id FROM sessions WHERE kernel_id = 'kernel-1')"
        )
        left = "SELECT kernel_id FROM sessions ORDER BY 1"
        for now, days, expected in (
            (2.5 * 86_400, None, [1, 2, 3]),
            (2.5 * 86_400, 3, [1, 2, 3]),
            (2.5 * 86_400, 2, [2, 3]),
        ):
            upkeep("prune", now=now, days=days)
            assert [(f"kernel-{number}",) for number in expected] == storage.rows(left)
