"""The file in which visa-jupyter-proxy 3.5 keeps the open notebook sessions.

It is node-persist's: named after the MD5 of the key, it holds the key and a list of sessions. 3.5 closes
all of them when it starts. So it is found here by whoever comes from 3.5, and written for the way back.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from visa_jupyter_proxy.control.journal.records import is_reportable
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.identifiers import LARGEST_INSTANCE
from visa_jupyter_proxy.mailbox import NotebookKey

_KEY: Final = "instanceNotebookSessions"
_NAME: Final = hashlib.md5(_KEY.encode(), usedforsecurity=False).hexdigest()

_BEGIN: Final = re.compile(rb'\s*\{\s*"key"\s*:\s*"instanceNotebookSessions"')
"""How the file begins, whatever its name."""

_LARGEST: Final = 64 * 2**20
"""Half a million sessions; what is larger is not this file."""


class Damaged(Exception):
    """The file cannot be read as what it should be; the text says why."""


@dataclass(frozen=True, slots=True)
class Left:
    """What 3.5 has left."""

    id: str
    """Of this file in this state: what was taken over under it once need not be so again."""
    keys: tuple[NotebookKey, ...]
    """The sessions that were open, each once."""
    unusable: int
    """How many entries are no session."""
    at: float
    """Unix time of the last change."""


def file_in(directory: Path) -> Path:
    """Give where 3.5 has the file."""
    return directory / _NAME


def find(directory: Path) -> list[Path]:
    """Give the files that are 3.5's: by their name, or by how they begin. Blocks. Raises `OSError`."""
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    return [path for path in entries if path.is_file() and (path.name == _NAME or _begins(path))]


def read(path: Path) -> Left:
    """Read the sessions. Blocks. Raises `Damaged` and `OSError`."""
    status = path.stat()
    if status.st_size > _LARGEST:
        raise Damaged("it is too large")
    content = path.read_bytes()
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON, or not all of it") from None
    if not isinstance(stored, dict) or stored.get("key") != _KEY or not isinstance(stored.get("value"), list):
        raise Damaged("it does not hold a list of notebook sessions")
    keys = [_session(entry) for entry in stored["value"]]
    usable = dict.fromkeys(key for key in keys if key is not None)
    mark = hashlib.sha256(b"%d %s" % (status.st_mtime_ns, content)).hexdigest()[:32]
    return Left(mark, tuple(usable), keys.count(None), status.st_mtime)


def retire(path: Path, word: str) -> Path:
    """Give the file another name, with `word` in it; nothing is replaced. Blocks. Raises `OSError`."""
    stem = f"{path.name}.{word}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1000):
        kept = path.with_name(f"{stem}-{number}" if number else stem)
        if not kept.exists():
            return path.rename(kept)
    raise FileExistsError(stem)


def write(path: Path, keys: Iterable[NotebookKey]) -> None:
    """Write these sessions as 3.5 does; those whose ids VISA could not keep, it cannot know. Blocks.

    Raises `OSError`, `FileExistsError` when there is one.
    """
    value = [
        {"instanceId": key.instance_id, "kernel": key.kernel_id, "sessionId": key.session_id}
        for key in keys
        if is_reportable(key)
    ]
    if path.is_dir():  # "." and "/" have no name to add to
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump({"key": _KEY, "value": value}, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _begins(path: Path) -> bool:
    # Those that were read already have a longer name, and their word in it. And never open the journal by
    # hand: to close its file drops the locks that SQLite has on it (sqlite.org/howtocorrupt.html, 2.2).
    if path.name.startswith(FILE) or re.search(r"\.(taken-over|damaged)-|\.part$", path.name):
        return False
    with path.open("rb") as file:
        return _BEGIN.match(file.read(256)) is not None


def _session(entry: Any) -> NotebookKey | None:
    if not isinstance(entry, dict):
        return None
    instance, kernel, session = (entry.get(name) for name in ("instanceId", "kernel", "sessionId"))
    if not isinstance(instance, int) or not isinstance(kernel, str) or not isinstance(session, str):
        return None
    if isinstance(instance, bool) or not 0 < instance <= LARGEST_INSTANCE:
        return None
    key = NotebookKey(instance, kernel, session)
    return key if is_reportable(key) else None
