"""Who may read the journal's files: the proxy's own user alone, for users' names are in them.

SQLite makes its database as the umask says, and the companions with the rights of the database. An open
descriptor of ours is out of the question: closing it would give up the locks that SQLite has on the file in
this process (sqlite.org/howtocorrupt.html, 2.2).
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_COMPANIONS: Final = ("", "-wal", "-shm")
_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def begin(path: Path) -> None:
    """Make an empty database that nobody else may read, if there is none; SQLite begins with it. Blocks.

    Where that is not to be had, on a disk that is full or without hard links, SQLite makes the file itself,
    or says why it cannot; `tighten` it then.
    """
    if path.exists():
        return
    with suppress(OSError):  # SQLite then says it, or makes the file
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(descriptor)
        try:
            os.link(name, path)  # never replaces what another process has made meanwhile
        finally:
            Path(name).unlink()


def tighten(path: Path) -> None:
    """Take the rights of others off a database and its companions, as far as they are ours. Blocks."""
    for ending in _COMPANIONS:
        file = path.with_name(path.name + ending)
        with suppress(OSError):  # there is none, or another user's, who decides
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & _OF_OTHERS:
                file.chmod(mode & ~_OF_OTHERS)
