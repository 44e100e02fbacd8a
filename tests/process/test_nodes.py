"""Two nodes that share a PostgreSQL: what becomes of sessions when one of them, or the database, is gone."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from process.conftest import Place, channel
from process.test_storage import AVAILABLE, UNAVAILABLE
from support.client import RawClient
from support.postgres import PostgresServer
from support.proxy import RunningProxy

TIMEOUT_S: Final = 4.0
LINGER_S: Final = 1.0

SPARE_S: Final = 15.0
"""For a machine that is busy with ten other things."""

SETTINGS: Final = {
    "WORKERS": "2",
    "OWNER_TIMEOUT_S": f"{TIMEOUT_S:g}",
    "SESSION_LINGER_S": f"{LINGER_S:g}",
}


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """Give the URL of a fresh database."""
    yield postgres.create("fleet")
    postgres.drop("fleet")


@pytest.fixture
def nodes(place: Place, database: str) -> Sequence[RunningProxy]:
    """Start two."""
    return [place.start(node=name, STORAGE_URL=database, **SETTINGS) for name in ("first", "second")]


def connect(place: Place, proxy: RunningProxy, *sessions: str) -> dict[str, RawClient]:
    """Open the kernel channel of each session."""
    clients = {session: place.client(proxy) for session in sessions}
    for session, client in clients.items():
        assert client.ask(channel(session)).status == 101
    return clients


def talk(*clients: RawClient) -> None:
    """See that WebSockets work."""
    for client in clients:
        client.send(b"hello")
        assert b"hello" == client.exactly(5)


def told(place: Place) -> dict[str, str]:
    """Session -> what VISA was told of it, in order."""
    reports: dict[str, str] = {}
    for asked in list(place.api.requests):
        if asked.endpoint in ("open", "close"):
            session = asked.key[2]
            reports[session] = f"{reports.get(session, '')} {asked.endpoint}".strip()
    return reports


def settled(postgres: PostgresServer, database: str) -> bool:
    """Whether every report has reached its end."""
    return not postgres.rows(database, "SELECT id FROM reports WHERE state = 'pending'")


def test_one_of_two_nodes_is_killed(
    place: Place, postgres: PostgresServer, database: str, nodes: Sequence[RunningProxy]
) -> None:
    """Sessions that live on the other node are never closed; all others are, once, and in time."""
    first, second = nodes
    ends = [f"ends{number}" for number in range(20)]
    moves = [f"moves{number}" for number in range(20)]
    overlaps = [f"overlaps{number}" for number in range(5)]
    connect(place, first, *ends, *moves, *overlaps, "late")
    # Those have a WebSocket on either node when the first one dies.
    alive = connect(place, second, *overlaps, "elsewhere")
    place.api.wait(lambda: len(place.sessions()) == 47)
    # What VISA has been told and the journal does not know yet would be told again.
    place.api.wait(lambda: settled(postgres, database))
    killed_at = time.time()
    first.kill()
    alive |= connect(place, second, *moves)
    talk(*alive.values())
    place.api.wait(lambda: not any(place.sessions()[session] for session in [*ends, "late"]))
    took = time.time() - killed_at
    assert TIMEOUT_S / 2 < took < TIMEOUT_S + LINGER_S + SPARE_S
    # Its browser was suspended: the session is closed, and a new one begins.
    alive |= connect(place, second, "late")
    place.api.wait(lambda: place.sessions()["late"])
    place.api.wait(lambda: settled(postgres, database))
    talk(*alive.values())
    assert {session: session in alive for session in told(place)} == place.sessions()
    assert {
        **dict.fromkeys(ends, "open close"),
        **dict.fromkeys([*moves, *overlaps, "elsewhere"], "open"),
        "late": "open close open",
    } == told(place)
    reasons = postgres.rows(database, "SELECT DISTINCT reason FROM sessions WHERE closed_at IS NOT NULL")
    assert [("owner lost",)] == reasons
    query = f"SELECT max(closed_at) - {killed_at} FROM sessions"
    ((longest,),) = postgres.rows(database, query)
    assert longest < TIMEOUT_S + LINGER_S + SPARE_S


def test_the_database_of_two_nodes_is_away(
    place: Place, postgres: PostgresServer, database: str, nodes: Sequence[RunningProxy]
) -> None:
    """For longer than an owner may be silent: nobody is taken for dead, and what moved meanwhile lives on."""
    first, second = nodes
    alive = connect(place, first, "stays", "moves", "goes")
    place.api.wait(lambda: len(place.sessions()) == 3)
    postgres.stop()
    try:
        stopped_at = time.monotonic()
        for proxy in nodes:
            proxy.wait(lambda: proxy.records(UNAVAILABLE))  # noqa: B023 -- waited for at once
        moved = connect(place, second, "moves", "new")
        for session in ("moves", "goes"):
            alive.pop(session).sock.close()
        alive |= moved
        first.wait(lambda: time.monotonic() - stopped_at > TIMEOUT_S + LINGER_S)
        talk(*alive.values())
        for proxy in nodes:
            control = proxy.states()[0]
            assert "failing" == control["journal"]
            assert 0 < control["records_waiting"]
    finally:
        postgres.start_again()
    for proxy in nodes:
        proxy.wait(lambda: proxy.records(AVAILABLE))  # noqa: B023 -- likewise
    place.api.wait(lambda: place.sessions().get("new") and not place.sessions()["goes"])
    place.api.wait(lambda: settled(postgres, database))
    for proxy in nodes:
        proxy.wait(lambda: proxy.states()[0]["records_waiting"] == 0)  # noqa: B023 -- likewise
        assert "written" == proxy.states()[0]["journal"]
    talk(*alive.values())
    assert {"stays": True, "moves": True, "goes": False, "new": True} == place.sessions()
    assert not [record for proxy in nodes for record in proxy.records("another control process is dead")]
    assert "open close" == told(place)["goes"]
    # Whichever node writes first: its close may come before the other's open, never behind it.
    assert told(place)["moves"] in ("open", "open close open")
