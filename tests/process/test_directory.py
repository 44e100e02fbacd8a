"""Two proxies on one directory: the old and the new one, while an upgrade without a gap is under way."""

import time
from pathlib import Path
from typing import Final

from process.conftest import Place
from process.test_nodes import LINGER_S, TIMEOUT_S, connect, talk, told
from support.sessions import rows

SETTINGS: Final = {"OWNER_TIMEOUT_S": f"{TIMEOUT_S:g}", "SESSION_LINGER_S": f"{LINGER_S:g}"}


def settled(directory: Path) -> bool:
    """Whether every report has reached its end."""
    return not rows(directory / "journal.sqlite3", "SELECT id FROM reports WHERE state = 'pending'")


def test_219_two_proxies_on_one_directory(place: Place) -> None:
    """Both write, and neither ends a session of the other: only one whose browser does not come back."""
    directory = place.directory / "shared"
    old, new = (place.start(node=name, STORAGE_DIR=str(directory), **SETTINGS) for name in ("old", "new"))
    alive = connect(place, new, *(f"new{number}" for number in range(10)))
    leaving = connect(place, old, "moves", "goes", *(f"old{number}" for number in range(8)))
    place.api.wait(lambda: len(place.sessions()) == 20)
    began = time.monotonic()
    old.wait(lambda: time.monotonic() - began > 2 * TIMEOUT_S)
    talk(*alive.values(), *leaving.values())
    assert dict.fromkeys([*alive, *leaving], "open") == told(place)
    # A browser is back on the new one before the old one has seen it leave.
    alive |= connect(place, new, *(session for session in leaving if session != "goes"))
    assert 0 == old.stop()
    place.api.wait(lambda: not place.sessions()["goes"])
    place.api.wait(lambda: settled(directory))
    talk(*alive.values())
    assert dict.fromkeys(alive, "open") | {"goes": "open close"} == told(place)
    assert not [one for proxy in (old, new) for one in proxy.records("another control process is dead")]
    query = "SELECT session_id FROM sessions WHERE closed_at IS NULL ORDER BY 1"
    assert sorted(alive) == [session for (session,) in rows(directory / "journal.sqlite3", query)]
    assert 0 == new.stop()
