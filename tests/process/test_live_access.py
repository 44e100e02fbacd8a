"""Whose access is watched, across the ends of processes, and across nodes."""

import base64
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Final

import pytest

from process.conftest import KERNEL, NUMBER, Place, path
from support.client import RawClient, get, upgrade
from support.postgres import PostgresServer
from support.proxy import PREFIX, RunningProxy
from visa_jupyter_proxy.worker.http.websocket import close_frame

REVOKED: Final = close_frame(1008, "access revoked")
SIGNED_OUT: Final = close_frame(1008, "not signed in any more")
GRACE_S: Final = 3.0
SETTINGS: Final = {"RECHECK_S": "0.3", "ACCESS_GRACE_S": f"{GRACE_S:g}"}


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """Give the URL of a fresh database."""
    yield postgres.create("live")
    postgres.drop("live")


def token(place: Place, number: int = 1) -> str:
    """Have the API accept a token of anna that says whose it is."""
    claims = json.dumps({"sub": "anna", "number": number}).encode()
    made = f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"
    place.api.user(made, "anna")
    return made


def connect(place: Place, proxy: RunningProxy, with_token: str, session: str = "S") -> RawClient:
    """Open a kernel channel."""
    client = place.client(proxy)
    target = path(f"/api/kernels/{KERNEL}/channels?session_id={session}")
    assert client.ask(upgrade(target, token=with_token)).status == 101
    return client


def click(place: Place, proxy: RunningProxy, with_token: str) -> int:
    """Make a plain request."""
    return place.client(proxy).ask(get(path(), token=with_token)).status


def ends_with(client: RawClient, farewell: bytes) -> bool:
    """Whether the next thing that comes is that close frame."""
    return client.exactly(len(farewell)) == farewell


def after_questions(place: Place, times: int) -> None:
    """Wait until the API was asked so many more times about somebody's access, and has answered."""
    until = len(place.api.asked("account")) + times + 1
    place.api.wait(lambda: len(place.api.asked("account")) >= until)


class TestRestarts:
    """What control knows of live tunnels stays true."""

    def test_170_a_worker_that_was_replaced(self, place: Place) -> None:
        """Nobody is asked about for its tunnels; those on the next one are watched."""
        proxy = place.start(**SETTINGS)
        mine = token(place)
        lost = connect(place, proxy, mine)
        after_questions(place, 1)
        first = proxy.worker_pid
        os.kill(first, signal.SIGKILL)
        assert lost.closed()
        proxy.wait(lambda: proxy.worker_pids and proxy.worker_pids != [first])
        client = connect(place, proxy, mine)
        after_questions(place, 1)
        (control, _) = proxy.states()
        assert (1, 0) == (control["access_watched"], control["access_doubted"])
        place.api.member(NUMBER, "anna", "USER")
        assert ends_with(client, REVOKED)
        client.sock.close()
        proxy.wait(lambda: 0 == proxy.states()[0]["access_watched"])

    def test_170_a_proxy_that_was_restarted(self, place: Place) -> None:
        """It knows nothing of before, and need not: tunnels end with their processes."""
        proxy = place.start(**SETTINGS)
        mine = token(place)
        connect(place, proxy, mine)
        after_questions(place, 1)
        proxy.kill()
        again = proxy.start_again()
        try:
            asked = len(place.api.asked("account"))
            client = connect(place, again, mine)
            assert asked == len(place.api.asked("account"))
            place.api.instances.pop(NUMBER)
            assert ends_with(client, REVOKED)
            assert 404 == click(place, again, mine)
        finally:
            again.kill()

    def test_170_none_at_all(self, place: Place) -> None:
        """With `RECHECK_S=0` nobody is asked about."""
        proxy = place.start(RECHECK_S="0", CACHE_REFRESH_TIME_S="0")
        mine = token(place)
        client = connect(place, proxy, mine)
        place.api.member(NUMBER, "anna", "USER")
        assert 404 == click(place, proxy, mine)
        client.send(b"hello")
        assert b"hello" == client.exactly(5)
        assert [] == place.api.asked("account")

    def test_170_another_period_by_a_reload(self, place: Place) -> None:
        """Who has lost access is found when there is a period at last."""
        variables = place.directory / ".env"
        variables.write_text(f"{PREFIX}RECHECK_S=0\n")
        proxy = place.start()
        client = connect(place, proxy, token(place))
        place.api.member(NUMBER, "anna", "USER")
        proxy.wait(lambda: proxy.states()[0]["notebook_connections"])
        assert [] == place.api.asked("account")
        variables.write_text(f"{PREFIX}RECHECK_S=0.3\n")
        proxy.signal(signal.SIGHUP)
        assert ends_with(client, REVOKED)


class TestNodes:
    """Two nodes that share a PostgreSQL."""

    def test_170_who_works_on_the_other_node_stays(self, place: Place, database: str) -> None:
        """Their token on this one is refused long since; when there is no work there either, it ends."""
        here, there = (
            place.start(node=name, STORAGE_URL=database, CACHE_REFRESH_TIME_S="0", **SETTINGS)
            for name in ("here", "there")
        )
        old = token(place)
        client = connect(place, here, old)
        after_questions(place, 1)
        newer = token(place, 2)
        del place.api.users[old]
        until = time.monotonic() + 3 * GRACE_S
        while time.monotonic() < until:
            assert 200 == click(place, there, newer)
        assert ([], [], []) == select.select([client.sock], [], [], 0)
        assert ends_with(client, SIGNED_OUT)
        assert newer not in (here.log.read_text() + there.log.read_text())

    def test_170_who_has_lost_the_instance_does_not(self, place: Place, database: str) -> None:
        """On the other node their tokens are accepted for another instance: that says nothing of this one."""
        here, there = (
            place.start(node=name, STORAGE_URL=database, CACHE_REFRESH_TIME_S="0", **SETTINGS)
            for name in ("here", "there")
        )
        place.api.instance(NUMBER + 1, owner="anna", ip=place.instance.host)
        old = token(place)
        client = connect(place, here, old)
        after_questions(place, 1)
        newer = token(place, 2)
        del place.api.users[old]
        place.api.member(NUMBER, "anna", "USER")
        with place.client(there) as other:
            client.sock.settimeout(0.05)
            until = time.monotonic() + 60.0
            while time.monotonic() < until:
                assert 200 == other.ask(get(f"/jupyter/{NUMBER + 1}/x", token=newer)).status
                try:
                    said = client.exactly(len(SIGNED_OUT))
                except TimeoutError:
                    continue
                break
            assert SIGNED_OUT == said
