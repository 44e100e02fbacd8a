"""Who may read the journal's files: users' names are in them."""

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.records import an_opened, journal_in
from support.storage import Storage
from visa_jupyter_proxy.control.journal.sqlite import FILE

_FILES = tuple(FILE + ending for ending in ("", "-wal", "-shm"))


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """As of most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def _rights(directory: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()}


def _rights_at_work(directory: Path) -> dict[str, int]:
    """Write a record, and give the rights of all files while the journal is open."""

    async def main() -> dict[str, int]:
        async with journal_in(Storage(directory), "me") as journal:
            await journal.write("me", [an_opened(1)])
            return _rights(directory)

    return asyncio.run(main())


@pytest.mark.parametrize("is_there", [True, False])
def test_new_files_are_the_own_users_alone(tmp_path: Path, *, is_there: bool) -> None:
    """In a directory that is made, and in one that is there and open to all; nothing else is left in it."""
    directory = tmp_path / "data"
    if is_there:
        directory.mkdir(mode=0o755)
    assert dict.fromkeys(_FILES, 0o600) == _rights_at_work(directory)


def test_files_that_are_there_are_tightened(tmp_path: Path) -> None:
    """Of a version before, or of a crash: with their companions. Files that are not ours are left alone."""
    _rights_at_work(tmp_path)
    (tmp_path / FILE).chmod(0o664)
    for ending in ("-wal", "-shm"):
        (tmp_path / f"{FILE}{ending}").touch(0o644)
    (tmp_path / "notes").touch(0o644)
    assert dict.fromkeys(_FILES, 0o600) | {"notes": 0o644} == _rights_at_work(tmp_path)
    assert [("s1",)] == Storage(tmp_path).rows("SELECT id FROM sessions")


def test_nobody_else_could_have_opened_it_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first moment on: also when the rights are not changed afterwards."""
    monkeypatch.setattr(Path, "chmod", lambda *_: pytest.fail("there is nothing to be tightened"))
    assert dict.fromkeys(_FILES, 0o600) == _rights_at_work(tmp_path)
