"""The pipe between control and a worker: real socket pairs, cut anywhere, and what becomes of their ends."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import uvloop

from support.conversation import FILES, JUPYTER
from visa_jupyter_proxy.mailbox import (
    AccessHeld,
    AccessReleased,
    Count,
    Counters,
    Drain,
    EndTunnels,
    LookAtTunnels,
    Mailbox,
    Message,
    NotebookKey,
    Observed,
    Page,
    Ping,
    Pong,
    Ready,
    Reload,
    ShowState,
    Start,
    TokenAccepted,
    Traffic,
    TunnelEnded,
    TunnelOpened,
    TunnelProgressed,
)
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.state import WorkerState

_SETTINGS = Settings(working_directory=Path.cwd()).for_worker()
_STATE = WorkerState(
    clients=1,
    downstream=2,
    upstream_busy=3,
    upstream_idle=4,
    tunnels=5,
    pipes_busy=6,
    pipes_idle=7,
    grants=8,
    api_connections=9,
)
_TRAFFIC = Traffic(
    bytes_up=1,
    bytes_down=2,
    messages_up=3,
    messages_down=2**33,
    first_interaction_at=1.25,
    last_interaction_at=1.5,
)
_ALL: list[Message] = [
    Start(settings=_SETTINGS, routes=(JUPYTER, FILES), pages={"en": {"x": Page(body=b"<p>", policy="")}}),
    Counters(
        counts=(Count("requests_total", ("Jupyter", "GET", "200"), 7),),
        observed=(Observed("request_duration_seconds", ("Jupyter",), (1, 0, 2), 0.5),),
        state=_STATE,
        instance_tunnels=((12, 1),),
    ),
    Ping(number=7),
    Drain(seconds=2.5),
    EndTunnels(code=1012, reason="service restart"),
    EndTunnels(
        user="anna",
        instance_id=12,
        notebooks=frozenset({1}),
        not_host="10.0.0.7",
        code=1008,
        reason="no access any more",
        forget_grants=True,
    ),
    LookAtTunnels(),
    Reload(settings=_SETTINGS, routes=(FILES,), pages={}),
    ShowState(),
    Ready(),
    Pong(number=7),
    TunnelOpened(tunnel=1, notebook=NotebookKey(12, "k", "s" * 200), user="anna", token="TOKEN", at=1.5),
    TokenAccepted(user="anna", token="TOKEN", instance_id=7, state="ACTIVE", host="10.0.0.7"),
    AccessHeld(user="anna", instance_id=7, host="10.0.0.7", token="TOKEN"),
    AccessReleased(user="anna", instance_id=7),
    TunnelProgressed(tunnel=1, traffic=Traffic(bytes_up=2**40, bytes_down=0)),
    TunnelProgressed(tunnel=2, traffic=_TRAFFIC, is_for_a_look=True),
    TunnelEnded(tunnel=1, reason="closed", at=2.5, traffic=Traffic(bytes_up=2**40, bytes_down=0)),
    TunnelEnded(tunnel=2, reason="client_gone", at=2.5, traffic=_TRAFFIC),
]
_PATIENCE_S = 20


class End:
    """One end of the pipe, and what it was told."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.losses = 0
        self.changed = asyncio.Event()

    async def open(self, sock: socket.socket) -> Mailbox:
        """Open the mailbox of this end."""
        return await Mailbox.open(sock, self._take, self._lose)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def _take(self, mailbox: Mailbox, message: Message) -> None:
        assert isinstance(mailbox, Mailbox)
        self.received.append(message)
        self.changed.set()

    def _lose(self) -> None:
        self.losses += 1
        self.changed.set()


def _run(test: Callable[[socket.socket, socket.socket], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            await test(ours, theirs)

    asyncio.run(run())


def _bytes(*messages: Message) -> bytes:
    bodies = [msgspec.msgpack.encode(message) for message in messages]
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def test_every_message_arrives_as_it_was_sent() -> None:
    """Both ways, in order."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        one, other = End(), End()
        near, far = await one.open(ours), await other.open(theirs)
        for message in _ALL:
            near.send(message)
            far.send(message)
        await one.until(lambda: len(one.received) == len(_ALL))
        await other.until(lambda: len(other.received) == len(_ALL))
        assert (_ALL, _ALL) == (one.received, other.received)
        await near.close()
        await far.close()

    _run(test)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100, 1_000_000])
def test_messages_may_be_cut_anywhere(size: int) -> None:
    """A read has nothing to do with a message."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        end = End()
        mailbox = await end.open(ours)
        data = _bytes(*_ALL)
        loop = asyncio.get_running_loop()
        for place in range(0, len(data), size):
            await loop.sock_sendall(theirs, data[place : place + size])
            await asyncio.sleep(0)
        await end.until(lambda: len(end.received) == len(_ALL))
        assert _ALL == end.received
        await mailbox.close()

    _run(test)


@pytest.mark.parametrize("first", range(len(_bytes(Ping(number=1))) + 1))
def test_two_messages_cut_at_every_byte_of_the_first(first: int) -> None:
    """Its length included."""
    end = End()
    mailbox = Mailbox(end._take, end._lose)
    data = _bytes(Ping(number=1), Ready())
    mailbox.data_received(data[:first])
    mailbox.data_received(data[first:])
    assert [Ping(number=1), Ready()] == end.received


def test_what_is_sent_in_one_turn_goes_together() -> None:
    """At its end, which wakes the other process once; `flush` does not wait for it."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        near = await End().open(ours)
        first, second = Ping(number=1), Pong(number=2)
        near.send(first)
        near.send(second)
        with pytest.raises(BlockingIOError):
            theirs.recv(1000)
        near.flush()
        assert _bytes(first, second) == theirs.recv(1000)
        near.send(first)
        near.send(second)
        loop = asyncio.get_running_loop()
        assert _bytes(first, second) == await loop.sock_recv(theirs, 1000)
        near.send(second)
        closing = asyncio.ensure_future(near.close())
        assert _bytes(second) == await loop.sock_recv(theirs, 1000)
        await closing

    _run(test)


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_was_said_last_is_heard_although_a_write_fails(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A process that has ended is told of by its last messages: their loss would be that of sessions."""

    async def test() -> None:
        ours, theirs = socket.socketpair()
        end = End()
        mailbox = await end.open(ours)
        theirs.sendall(_bytes(*[Pong(number=number) for number in range(100)]))
        theirs.close()
        mailbox.send(Ping(number=1))
        mailbox.flush()
        await end.until(lambda: end.losses == 1)
        assert [Pong(number=number) for number in range(100)] == end.received

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(test())


def test_a_message_larger_than_the_pipe_arrives() -> None:
    """Sending never waits: what does not fit is queued."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        one, other = End(), End()
        near, far = await one.open(ours), await other.open(theirs)
        message = TunnelOpened(
            tunnel=1, notebook=NotebookKey(1, "k", "s" * 2**21), user="u", token="t", at=0.0
        )
        near.send(message)
        near.send(Ready())
        await other.until(lambda: len(other.received) == 2)
        assert [message, Ready()] == other.received
        await near.close()
        await far.close()

    _run(test)


def test_the_other_end_is_gone() -> None:
    """Told once; what is sent then is dropped, and closing ends."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        end = End()
        mailbox = await end.open(ours)
        theirs.close()
        await end.until(lambda: end.losses > 0)
        for message in _ALL:
            mailbox.send(message)
        async with asyncio.timeout(_PATIENCE_S):
            await mailbox.close()
        assert 1 == end.losses

    _run(test)


def test_what_was_sent_before_the_end_arrives() -> None:
    """Closing is not cutting."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        one, other = End(), End()
        near, far = await one.open(ours), await other.open(theirs)
        for message in _ALL * 100:
            near.send(message)
        await near.close()
        await other.until(lambda: other.losses > 0)
        assert _ALL * 100 == other.received
        await far.close()

    _run(test)


@pytest.mark.parametrize(
    "nonsense",
    [
        struct.pack(">I", 2**31),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 0),
        struct.pack(">I", 15) + b"\x81\xa4type\xa8whatever",
    ],
    ids=["length", "no map", "empty", "unknown type"],
)
def test_a_stream_out_of_step_is_the_end(nonsense: bytes) -> None:
    """Nothing that follows could be trusted: the other process counts as gone."""

    async def test(ours: socket.socket, theirs: socket.socket) -> None:
        complaints: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        end = End()
        mailbox = await end.open(ours)
        await loop.sock_sendall(theirs, _bytes(Ready()) + nonsense + _bytes(Ping(number=1)))
        await end.until(lambda: end.losses > 0)
        assert [Ready()] == end.received
        assert 1 == len(complaints)
        await mailbox.close()

    _run(test)


def test_no_repr_shows_a_token() -> None:
    """A message may stand in a log."""
    shown = [repr(message) for message in _ALL]
    assert "TOKEN" not in "".join(shown)
    assert any("user='anna'" in text for text in shown)
