"""A WebSocket outlives the grant that opened it: what ends it, and what does not (contract section 3)."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from support.admin import AdminClient
from support.client import RawClient, get, upgrade
from support.instance import Instance, echo, ok
from support.proxy import RunningProxy, running_proxy
from support.visa_api import Answer, VisaApiServer
from visa_jupyter_proxy.worker.http.websocket import close_frame
from wire.conftest import Wire, production
from wire.test_notebook_sessions import channels, connect, frame, jwt, of_the_journal

RECHECK_S: Final = 0.3
GRACE_S: Final = 3.0

REVOKED: Final = close_frame(1008, "access revoked")
SIGNED_OUT: Final = close_frame(1008, "not signed in any more")
GONE: Final = close_frame(1001, "instance stopped or deleted")
MOVED: Final = close_frame(1001, "instance moved")

CLOSE: Final = b"\x88\x82\0\0\0\0\x03\xf0"
"""As a browser answers."""


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy with two workers and short periods."""
    with running_proxy(
        tmp_path_factory.mktemp("proxy"),
        api_url=api.url,
        routes=production(instance_port),
        WORKERS="2",
        RECHECK_S=f"{RECHECK_S}",
        ACCESS_GRACE_S=f"{GRACE_S}",
    ) as running:
        yield running


@pytest.fixture
def user(wire: Wire) -> Iterator["User"]:
    """Give somebody whose tokens say who they are, and whose instance echoes."""
    wire.instance.play(echo)
    user = User(wire)
    yield user
    for client in user.clients:
        client.sock.close()


class User:
    """Somebody with WebSockets to their instance."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.name = f"user-{wire.number}"
        self.clients: list[RawClient] = []
        self._tokens = 0
        self.sign_in()

    def sign_in(self) -> None:
        """Get a new token; the old ones go on to be good."""
        self._tokens += 1
        self.wire.token = jwt(sub=self.name, number=self._tokens)
        self.wire.api.user(self.wire.token, self.name)

    def sign_out(self) -> None:
        """Have all tokens refused."""
        for token in [token for token, name in self.wire.api.users.items() if name == self.name]:
            del self.wire.api.users[token]

    def rotate(self) -> None:
        """Get a new token, as it happens every few minutes: the old ones are refused."""
        self.sign_out()
        self.sign_in()

    def kernel(self, session: str) -> RawClient:
        """Open a kernel channel."""
        return self._open(channels(f"session_id={session}"))

    def terminal(self) -> RawClient:
        """Open a WebSocket that is no kernel channel."""
        return self._open("/terminals/websocket/1")

    def click(self) -> int:
        """Make a plain request, and give the status."""
        return self.wire.ask(self.wire.get("/api/contents")).status

    def questions(self) -> int:
        """Count what the API was asked about this user's instance by the call that has no side effect."""
        return sum(f"/{self.wire.number}" in one.path for one in self.wire.api.asked("account"))

    def after_questions(self, times: int) -> None:
        """Wait until the API has been asked so many more times, and the last but one was answered."""
        until = self.questions() + times + 1
        self.wire.api.wait(lambda: self.questions() >= until)

    def reasons(self) -> set[str]:
        """Give why sessions of the instance were closed."""
        query = "SELECT instance_id, reason FROM sessions WHERE closed_at IS NOT NULL"
        return {reason for (reason,) in of_the_journal(self.wire, query)}

    def still_works(self, client: RawClient) -> bool:
        """Whether a WebSocket does."""
        client.send(frame(b"hello"))
        return client.exactly(len(frame(b"hello"))) == frame(b"hello")

    def _open(self, rest: str) -> RawClient:
        client = connect(self.wire, rest)
        self.clients.append(client)
        return client


def ends_with(client: RawClient, farewell: bytes) -> bool:
    """Whether the next thing that comes is that close frame, and nothing follows the browser's answer."""
    said = client.exactly(len(farewell))
    client.send(CLOSE)
    client.finish()
    return said == farewell and client.closed()


class TestRevoked:
    """Firm answers end the tunnels."""

    def test_170_the_ownership_is_taken_away(self, user: User) -> None:
        """All their WebSockets get 1008, on whatever worker; the next request 404; the journal says why."""
        wire, api = user.wire, user.wire.api
        clients = [user.kernel(f"S{number}") for number in range(4)] + [user.terminal() for _ in range(4)]
        user.after_questions(1)
        before, seen = user.questions(), api.seen(wire.number)
        api.member(wire.number, user.name, "USER")
        assert ends_with(clients[0], REVOKED)
        assert user.questions() - before <= 4  # one may have been answered before, two agreed, one followed
        assert all(ends_with(client, REVOKED) for client in clients[1:])
        assert 404 == user.click()
        wire.proxy.wait(lambda: {"access revoked"} == user.reasons())
        found = AdminClient(wire.proxy.admin_port).metrics()
        assert found["access_ended_total", "access revoked"] >= 1
        assert 1 == found["access_questions_up",]
        assert seen == api.seen(wire.number)

    def test_170_there_is_no_such_instance_any_more(self, user: User) -> None:
        """The API knows nothing of it: 404."""
        client = user.kernel("S")
        del user.wire.api.instances[user.wire.number]
        assert ends_with(client, REVOKED)
        assert 404 == user.click()

    @pytest.mark.parametrize("state", ["DELETED", "DELETING", "STOPPED"])
    def test_170_the_instance_is_going(self, user: User, state: str) -> None:
        """1001: it is not the user's fault."""
        client = user.kernel("S")
        wire = user.wire
        wire.api.instance(wire.number, owner=user.name, ip=wire.instance.host, state=state)
        assert ends_with(client, GONE)
        wire.proxy.wait(lambda: {"instance stopped or deleted"} == user.reasons())

    def test_170_others_stay(self, user: User) -> None:
        """Another user of the same instance's new owner, another instance of the same user."""
        wire, api = user.wire, user.wire.api
        client, token = user.kernel("S"), jwt(sub="eve", of=wire.number)
        api.user(token, "eve")
        api.instance(wire.number, owner="eve", ip=wire.instance.host)
        other = RawClient(wire.proxy.port)
        user.clients.append(other)
        assert 101 == other.ask(upgrade(wire.path("/ws"), token=token)).status
        assert ends_with(client, REVOKED)
        assert user.still_works(other)
        assert 200 == wire.ask(get(wire.path("/x"), token=token)).status

    def test_170_an_instance_with_another_address(self, user: User) -> None:
        """What leads to the old one ends with 1001; the next request reaches the new one."""
        wire = user.wire
        client = user.kernel("S")
        with Instance(wire.instance.port) as elsewhere:
            elsewhere.answer(ok(b"new"))
            wire.api.instance(wire.number, owner=user.name, ip=elsewhere.host)
            assert ends_with(client, MOVED)
            assert b"new" == wire.ask(wire.get("/x")).body
        wire.proxy.wait(lambda: {"instance moved"} == user.reasons())


class TestNotRevoked:
    """What is not firm ends nothing."""

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda user: user.wire.api.always("account", Answer(status=500)),
            lambda user: user.wire.api.always("account", Answer(status=502, body=b"<html>")),
            lambda user: user.wire.api.always("account", Answer(reset=True)),
            lambda user: user.wire.api.always("account", Answer(raw=b"HTTP/1.1 200 OK\r\n\r\n{}")),
            *(
                lambda user, state=state: user.wire.api.instance(
                    user.wire.number, owner=user.name, ip=user.wire.instance.host, state=state
                )
                for state in ("BUILDING", "STOPPING", "REBOOTING", "ERROR", "UNAVAILABLE", "UNKNOWN")
            ),
        ],
        ids=["500", "502", "reset", "nonsense", "building", "stopping", "reboot", "error", "away", "unknown"],
    )
    def test_170_an_api_that_says_nothing(self, user: User, spoil: Callable[[User], None]) -> None:
        """No answer, 5xx, and all other states: no conclusion, however often."""
        client = user.kernel("S")
        try:
            spoil(user)
            user.after_questions(3)
            assert user.still_works(client)
        finally:
            user.wire.api.always("account", None)

    def test_170_a_single_404(self, user: User) -> None:
        """Which the next answer does not confirm."""
        client = user.kernel("S")
        user.wire.api.script("account", Answer(status=404))
        user.after_questions(3)
        assert user.still_works(client)

    def test_170_tokens_that_rotate(self, user: User) -> None:
        """For twice the grace; each is accepted with the next click. The socket has that of the handshake."""
        client = user.kernel("S")
        until = time.monotonic() + 2 * GRACE_S
        while time.monotonic() < until:
            user.rotate()
            user.after_questions(1)
            assert 200 == user.click()
            user.after_questions(1)
        assert user.still_works(client)

    def test_170_who_has_signed_out(self, user: User) -> None:
        """Every token is refused, and no other comes: after the grace it is 1008, not before."""
        client = user.kernel("S")
        user.after_questions(1)
        began = time.monotonic()
        user.sign_out()
        assert ends_with(client, SIGNED_OUT)
        assert time.monotonic() - began >= GRACE_S
        user.wire.proxy.wait(lambda: {"not signed in any more"} == user.reasons())

    def test_170_an_opaque_token_is_on_its_own(self, user: User) -> None:
        """Another one that the API accepts of the same user says nothing for it: it tells no `sub`."""
        wire = user.wire
        user.sign_out()
        for token in ("opaque-one-", "opaque-two-"):
            wire.api.user(f"{token}{wire.number}", user.name)
        wire.token = f"opaque-one-{wire.number}"
        client = user.kernel("S")
        del wire.api.users[wire.token]
        wire.token = f"opaque-two-{wire.number}"
        other = user.kernel("T")
        assert ends_with(client, SIGNED_OUT)
        assert user.still_works(other)

    def test_141_170_an_idle_tab_keeps_nothing_alive(self, user: User) -> None:
        """In ten periods `lastSeenAt` does not move; with a click it does."""
        wire = user.wire
        client = user.kernel("S")
        seen = wire.api.seen(wire.number)
        user.after_questions(10)
        assert seen == wire.api.seen(wire.number)
        user.rotate()  # what was granted to the old token is still remembered
        assert 200 == user.click()
        assert seen + 1 == wire.api.seen(wire.number)
        assert user.still_works(client)
