"""The clock on the wall may jump: what lives for a time lives on the monotonic clock (case 234)."""

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from process.conftest import INSIDE, KERNEL, Place, in_front_of_pythonpath, path
from support.client import get, upgrade
from support.instance import Connection, echo, ok
from support.sessions import rows

HOUR: Final = 3600.0

type Move = Callable[[float], None]


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Set the wall clock of the proxy, which is to be started afterwards, off by so many seconds."""
    offset = tmp_path / "offset"
    monkeypatch.setenv("PYTHONPATH", in_front_of_pythonpath(INSIDE))
    monkeypatch.setenv("CLOCK_OFFSET_FILE", str(offset))

    def move_to(seconds: float) -> None:
        written = offset.with_suffix(".new")
        written.write_text(str(seconds))
        written.rename(offset)  # at once: it is being read

    move_to(0)
    return move_to


def token(expires_in: float) -> str:
    """Write a token that says when it expires."""
    parts = [{"alg": "none"}, {"sub": "anna", "exp": time.time() + expires_in}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_234_what_is_under_way_outlives_a_jump(place: Place, move: Move, jump: float) -> None:
    """Neither a grant nor a notebook, a kept connection or a running request ends because of it."""
    mine, answer = token(HOUR / 2), threading.Event()
    place.api.user(mine, "anna")

    def script(connection: Connection) -> None:
        if connection.instance.connections == 1:  # the slow request's
            connection.request()
            assert answer.wait(20)
            connection.send(ok(b"slow"))
        echo(connection)

    place.instance.play(script)
    proxy = place.start()
    slow, kept, tunnel = (place.client(proxy) for _ in range(3))
    slow.send(get(path("/slow"), token=mine))
    place.instance.wait(lambda: place.instance.requests)
    assert kept.ask(get(path("/kept"), token=mine)).status == 200
    asked = upgrade(path(f"/api/kernels/{KERNEL}/channels?session_id=S"), token=mine)
    assert tunnel.ask(asked).status == 101
    place.api.wait(lambda: place.sessions() == {"S": True})
    move(jump)
    second = upgrade(path(f"/api/kernels/{KERNEL}/channels?session_id=T"), token=mine)
    later = place.client(proxy)
    assert later.ask(second).status == 101
    place.api.wait(lambda: place.sessions() == {"S": True, "T": True})
    assert kept.ask(get(path("/kept"), token=mine)).status == 200
    tunnel.send(b"hello")
    assert b"hello" == tunnel.exactly(5)
    answer.set()
    assert b"slow" == slow.response().body
    assert 1 == len(place.api.asked("instance"))
    journal = place.directory / "data" / "journal.sqlite3"
    (first,), (last,) = rows(journal, "SELECT opened_at FROM sessions ORDER BY session_id")
    assert jump == pytest.approx(last - first, abs=60)  # the jump has been one


@pytest.mark.parametrize("what", ["CACHE_REFRESH_TIME_S", "exp"])
def test_234_what_is_to_end_ends_although_the_clock_is_set_back(place: Place, move: Move, what: str) -> None:
    """A grant lives as long as was decided when it was given; a silent client is closed in time."""
    proxy = place.start(CACHE_REFRESH_TIME_S="60" if what == "exp" else "3", HEADER_TIMEOUT_S="2")
    mine = token(3 if what == "exp" else HOUR / 2)
    place.api.user(mine, "anna")
    assert place.client(proxy).ask(get(path(), token=mine)).status == 200
    silent = place.client(proxy)
    move(-HOUR)
    client = place.client(proxy)

    def is_asked_again() -> bool:
        assert client.ask(get(path(), token=mine)).status == 200
        return len(place.api.asked("instance")) > 1

    proxy.wait(is_asked_again)
    assert silent.closed()


def test_234_a_token_that_is_past_by_our_clock_only(place: Place, move: Move) -> None:
    """The API decides: what it accepts is served, and remembered for a few seconds."""
    mine = token(HOUR / 2)
    place.api.user(mine, "anna")
    proxy = place.start()
    move(HOUR)
    client = place.client(proxy)
    for _ in range(5):
        assert client.ask(get(path(), token=mine)).status == 200
    assert 1 == len(place.api.asked("instance"))
