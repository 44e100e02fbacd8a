"""Control has a worker end tunnels: which ones, and what is told of them (a real worker process)."""

import base64
import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import msgspec
import pytest

from process.conftest import KERNEL
from support.client import RawClient, get, upgrade
from support.conversation import JUPYTER
from support.instance import Connection, Instance, ok, switching
from support.pages import SHIPPED
from support.visa_api import VisaApiServer, visa_api_thread
from support.worker import RunningWorker, running_worker
from visa_jupyter_proxy import settings
from visa_jupyter_proxy.mailbox import EndTunnels, Start, TunnelEnded, TunnelOpened
from visa_jupyter_proxy.worker.http.websocket import close_frame

REASON: Final = "no access any more"
PING: Final = b"\x89\x80abcd"
ANSWER: Final = b"\x81\x02hi"
_numbers: Final = itertools.count(100, 10)
FAREWELL: Final = close_frame(1008, REASON)


def answer(connection: Connection) -> None:
    """Answer plain requests, and each frame of a WebSocket with `ANSWER`, until there is no more."""
    while (request := connection.request()).one("upgrade") is None:
        connection.send(ok())
    connection.send(switching(request))
    while connection.more():
        connection.send(ANSWER)


class Stage:
    """A worker, the API, and two instances of this test's own: 1 is anna's, 2 is ben's."""

    def __init__(self, worker: RunningWorker, api: VisaApiServer, instances: dict[int, Instance]) -> None:
        self.worker, self.api, self.instances = worker, api, instances
        self.clients: list[RawClient] = []
        self._first = next(_numbers)
        self._kernels = 0
        worker.messages.clear()
        for number, user in ((1, "anna"), (2, "ben")):
            instances[number].play(answer)
            self.owns(number, user)
            api.instance(self.id(number), owner=user, ip=instances[number].host)

    def id(self, number: int) -> int:
        """Give the id that the VISA API has for an instance."""
        return self._first + number

    def owns(self, number: int, user: str) -> None:
        """Have the API take the token of the instance's owner for that of `user`."""
        self.api.user(self._token("anna" if number == 1 else "ben"), user)

    def client(self) -> RawClient:
        """Connect; closed at the end of the test."""
        client = RawClient(self.worker.port)
        self.clients.append(client)
        return client

    def open(self, number: int, user: str, session: str | None = None) -> RawClient:
        """Open a WebSocket of `user`, to a kernel if there is a session."""
        rest = "/ws" if session is None else f"/api/kernels/{KERNEL}/channels?session_id={session}"
        client = self.client()
        request = upgrade(f"/jupyter/{self.id(number)}{rest}", token=self._token(user))
        assert client.ask(request).status == 101
        self._kernels += session is not None
        return client

    def end(self, number: object = None, **fits: object) -> None:
        """Have those tunnels ended that fit, to an instance if one is given."""
        instance = {"instance_id": self.id(number)} if isinstance(number, int) else {}
        self.worker.tell(msgspec.convert({"code": 1008, "reason": REASON, **instance, **fits}, EndTunnels))

    def get(self, number: int, user: str) -> int:
        """Make a plain request, and give the status."""
        return self.client().ask(get(f"/jupyter/{self.id(number)}/x", token=self._token(user))).status

    def tunnels(self) -> dict[str, int]:
        """Wait until control is told of the tunnels of all kernels; give session and number of each."""
        self.worker.until(lambda: len(self.worker.told(TunnelOpened)) == self._kernels)
        return {told.notebook.session_id: told.tunnel for told in self.worker.told(TunnelOpened)}

    def reason(self, tunnel: int) -> str:
        """Wait for the end of a tunnel, and give its reason."""
        self.worker.until(lambda: tunnel in [told.tunnel for told in self.worker.told(TunnelEnded)])
        return next(told.reason for told in self.worker.told(TunnelEnded) if told.tunnel == tunnel)

    def questions(self) -> int:
        """Count what the API was asked."""
        return len(self.api.asked("instance"))

    def _token(self, user: str) -> str:
        """Make a token that says whose it is, for this test alone."""
        claims = json.dumps({"sub": user, "first": self._first}).encode()
        return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningWorker, VisaApiServer, int]]:
    """Start a worker and an API, and find a port for instances."""
    with ExitStack() as stack:
        with socket.create_server(("0.0.0.0", 0)) as sock:
            port = int(sock.getsockname()[1])
        api = stack.enter_context(visa_api_thread())
        given = {"API_URL": api.url, "INSTANCE_NETWORKS": "127.0.0.0/8", "ACCESS_LOG": "off"}
        chosen, _ = settings.load(
            {settings.PREFIX + name: value for name, value in given.items()},
            directory=tmp_path_factory.mktemp("worker"),
        )
        start = Start(
            settings=chosen.for_worker(),
            routes=(msgspec.structs.replace(JUPYTER, remote_port=port),),
            pages=SHIPPED,
        )
        yield stack.enter_context(running_worker(start)), api, port


@pytest.fixture
def stage(theatre: tuple[RunningWorker, VisaApiServer, int]) -> Iterator[Stage]:
    """Make two users and their instances."""
    worker, api, port = theatre
    with Instance(port) as first, Instance(port) as second:
        stage = Stage(worker, api, {1: first, 2: second})
        yield stage
        for client in stage.clients:
            client.sock.close()


def lives(client: RawClient) -> bool:
    """Whether the instance answers through the tunnel, and nobody has said anything else."""
    client.send(PING)
    return client.exactly(len(ANSWER)) == ANSWER


def is_told_and_ended(client: RawClient) -> bool:
    """Whether the close frame comes, and then, when the client has closed, the end."""
    told = client.exactly(len(FAREWELL)) == FAREWELL
    client.finish()
    client.rest()
    return told


class TestWhoIsMeant:
    """All that is given has to fit."""

    def test_a_user_at_an_instance(self, stage: Stage) -> None:
        """Nobody else, and nothing of theirs elsewhere; the end is told with its reason."""
        hers, kernel, his = stage.open(1, "anna"), stage.open(1, "anna", "S"), stage.open(2, "ben", "T")
        stage.end(1, user="anna")
        assert is_told_and_ended(hers)
        assert is_told_and_ended(kernel)
        assert lives(his)
        assert REASON == stage.reason(stage.tunnels()["S"])

    @pytest.mark.parametrize(
        "fits", [{"user": "carl"}, {"user": "anna", "number": 2}, {"notebooks": frozenset({99})}]
    )
    def test_nobody(self, stage: Stage, fits: dict[str, object]) -> None:
        """Then nothing happens."""
        client = stage.open(1, "anna", "S")
        stage.end(**fits)
        stage.end(user="ben")  # what has come before has been dealt with when this one has
        his = stage.open(2, "ben")
        stage.end(user="ben")
        assert is_told_and_ended(his)
        assert lives(client)

    def test_one_connection(self, stage: Stage) -> None:
        """By the number that it was told of with."""
        first, second = stage.open(1, "anna", "S"), stage.open(1, "anna", "T")
        stage.end(notebooks=frozenset({stage.tunnels()["T"]}))
        assert is_told_and_ended(second)
        assert lives(first)

    def test_those_to_another_address(self, stage: Stage) -> None:
        """The instance has moved: who is at the new address stays."""
        old = stage.open(1, "anna")
        stage.end(1, not_host=stage.instances[1].host)
        assert lives(old)
        stage.end(1, not_host=stage.instances[2].host)
        assert is_told_and_ended(old)


class TestGrants:
    """What was granted may be taken back with the tunnels: the next request asks the API."""

    def test_a_users_grant_is_forgotten_if_that_is_said(self, stage: Stage) -> None:
        """Only then, and only theirs."""
        assert [200, 200] == [stage.get(1, "anna"), stage.get(2, "ben")]
        stage.owns(1, "nobody")
        stage.end(1, user="anna")
        assert 200 == stage.get(1, "anna")
        stage.end(1, user="anna", forget_grants=True)
        stage.worker.until(lambda: stage.get(1, "anna") == 404)
        asked = stage.questions()
        assert 200 == stage.get(2, "ben")
        assert asked == stage.questions()

    def test_a_grant_of_the_old_address_is_forgotten(self, stage: Stage) -> None:
        """One of the new address is not."""
        assert 200 == stage.get(1, "anna")
        asked = stage.questions()
        stage.end(1, not_host=stage.instances[1].host, forget_grants=True)
        stage.end(2, not_host=stage.instances[1].host, forget_grants=True)
        assert 200 == stage.get(1, "anna")
        assert asked == stage.questions()
        stage.end(1, not_host="10.0.0.1", forget_grants=True)
        stage.worker.until(lambda: stage.get(1, "anna") == 200 and stage.questions() > asked)

    def test_with_one_connection_its_users_grant(self, stage: Stage) -> None:
        """For that instance; nobody else's."""
        client = stage.open(1, "anna", "S")
        assert 200 == stage.get(2, "ben")
        asked = stage.questions()
        stage.end(notebooks=frozenset({stage.tunnels()["S"]}), forget_grants=True)
        assert is_told_and_ended(client)
        assert [200, 200] == [stage.get(2, "ben"), stage.get(1, "anna")]
        assert asked + 1 == stage.questions()


def test_who_does_not_answer_is_not_waited_for_long(stage: Stage) -> None:
    """Neither side closes: the connection is over within some seconds all the same."""
    client = stage.open(1, "anna", "S")
    stage.end(user="anna")
    assert FAREWELL == client.rest()
    assert REASON == stage.reason(stage.tunnels()["S"])
