"""Database files that are none: set aside under another name, never deleted."""

import fcntl
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from visa_jupyter_proxy import logs

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_log = logs.get()


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite says that the file is damaged, or no database at all."""
    cause = _cause(error)
    # The low byte is the primary code, the rest says more of it (sqlite.org/rescode.html).
    return cause is not None and cause.sqlite_errorcode & 0xFF in _DAMAGED


def describe(error: BaseException) -> str:
    """Give the reason in a few words without values."""
    cause = _cause(error)
    if cause is not None:
        return f"{cause.sqlite_errorname}: {cause}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"the database cannot be used ({type(error).__name__})"


def set_aside(path: Path) -> None:
    """Rename a damaged database and its companions, unless it is sound after all. Blocks.

    A lock file makes processes that share the directory do this one after the other: the second finds
    the new database of the first, and leaves it alone. The file has the name of what was set aside, for
    whoever begins the new database, which may be another process, or a later one.
    """
    with _lock_file(path).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or _is_sound(path):
            return
        aside = _free_name(path)
        # First: a process that is killed here has renamed nothing, and a name without a file means nothing.
        lock.truncate(0)
        lock.write(aside.name)
        lock.flush()
        # The companions first: without the database they mean nothing to whoever opens it meanwhile.
        for ending in ("-wal", "-shm", ""):
            companion = path.with_name(path.name + ending)
            if companion.exists():
                companion.rename(aside.with_name(aside.name + ending))
    _log.error(
        "the journal was damaged: it has been set aside and a new one is begun",
        journal=str(path),
        kept_as=str(aside),
    )


def waiting(path: Path) -> Path | None:
    """Give the database that was set aside, and has not been read for what can be carried over. Blocks."""
    try:
        name = _lock_file(path).read_text()
    except FileNotFoundError:
        return None
    aside = path.with_name(name) if name else None
    return aside if aside is not None and aside.exists() else None


def carried_over(path: Path) -> None:
    """Note that what was `waiting` does so no more. Blocks."""
    os.truncate(_lock_file(path), 0)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _cause(error: BaseException | None) -> sqlite3.Error | None:
    while error is not None:
        original = getattr(error, "orig", None) or error
        if isinstance(original, sqlite3.Error) and hasattr(original, "sqlite_errorcode"):
            return original
        error = error.__cause__
    return None


def _is_sound(path: Path) -> bool:
    """Whether SQLite finds no fault; a file that cannot be opened now is left alone, too."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.Error as error:
        return not is_damage(error)


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (path.with_name(stem if n == 0 else f"{stem}-{n}") for n in range(1000))
    return next(name for name in names if not name.exists())
