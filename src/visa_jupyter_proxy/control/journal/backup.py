"""A copy of the journal's file, made while a proxy writes to it."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from visa_jupyter_proxy.control.journal import damage
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable


def copy(journal: Path, to: Path) -> None:
    """Copy the database to a file that is not there yet: one state of everything, and checked. Blocks.

    Until it is complete it has another name. Raises `JournalUnavailable`, and `OSError` for `to`.
    """
    if not journal.exists():
        raise JournalUnavailable("there is none yet; a proxy with this STORAGE_DIR begins it when it starts")
    if to.is_dir():  # "." and "/" have no name to add to
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    part = _part(to)
    # Users' names are in it.
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    try:
        _copy(journal, part)
        # Unlike a rename this never replaces a file.
        os.link(part, to)
    except sqlite3.Error as error:
        raise JournalUnavailable(damage.describe(error)) from error
    finally:
        part.unlink(missing_ok=True)


def so_far(to: Path) -> int:
    """Say how many bytes of a copy to this file are there: 0 when it has not begun, or is complete."""
    try:
        return _part(to).stat().st_size
    except OSError:
        return 0


def _part(to: Path) -> Path:
    return to.with_name(f"{to.name}.part")


def _copy(journal: Path, part: Path) -> None:
    source_uri = f"{journal.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(source_uri, uri=True)) as source, closing(sqlite3.connect(part)) as target:
        # All in one step: a copy in several would begin anew whenever a proxy writes.
        source.backup(target)
        # One file, without companions.
        target.execute("PRAGMA journal_mode=DELETE")
        if target.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
            raise JournalUnavailable(f"the journal at {journal} is damaged")
    with part.open("rb") as file:
        os.fsync(file.fileno())
