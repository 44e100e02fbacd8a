"""People with notebooks in their browsers, and what they have seen: the truth that is compared with.

A notebook is a tab with a kernel channel. While it is open it comes back when its WebSocket is lost, with
the same ids, to any node: as JupyterLab does. What becomes of an attempt is nobody's fault here.
"""

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from support.client import get, upgrade
from support.visa_api import Key

type Ports = Callable[[int], int | None]
"""Node -> the port on which it listens, None while it is down."""

ANSWER_S: Final = 15.0
"""When a browser gives an attempt up: later than the proxy gives VISA up."""

_PING: Final = b"\x89\x80\x01\x02\x03\x04"
_WORDS: Final = b"\x81\x85\x00\x00\x00\x00hello"
"""A text message as a browser sends it: masked, here with zeros."""

_PAUSE_S: Final = (0.05, 0.8)
"""Before the next attempt; JupyterLab waits for a second, and has less to do."""


@dataclass
class User:
    """Somebody, the instance of theirs, and the newest token."""

    number: int
    tokens: int = 0

    @property
    def name(self) -> str:
        """Id at VISA."""
        return f"user-{self.number}"

    @property
    def instance(self) -> int:
        """Give the id of their instance."""
        return 100 + self.number

    @property
    def token(self) -> str:
        """The newest access token; `sub` says that it is the same person's as the one before."""
        claims = json.dumps({"sub": self.name, "jti": self.tokens}).encode()
        return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


@dataclass(frozen=True)
class Seen:
    """A 101 that a client has received; Unix time."""

    node: int
    asked_at: float
    at: float


@dataclass(eq=False)
class _Channel:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    echoed: int = 0
    """Bytes that came back."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Take what comes, until the end."""
        try:
            while data := await self.reader.read(65536):
                self.echoed += len(data)
        except ConnectionError:
            pass  # a reset is an end like any other
        self.ended.set()

    def end(self, how: str) -> None:
        if how == "RST":
            self.writer.transport.abort()
        else:
            self.writer.close()


class Notebook:
    """A tab; `run` is its life."""

    def __init__(self, seed: str, number: int, user: User, ports: Ports, nodes: int) -> None:
        self.key: Key = (user.instance, f"kernel-{number}", f"session-{number}")
        self.seen: list[Seen] = []
        self.refusals: Counter[str] = Counter()
        """What came instead of a 101."""
        self.is_open = False
        self._user = user
        self._ports = ports
        self._nodes = nodes
        self._chance = random.Random(f"{seed} {number}")
        self._next: int | None = None
        self._channels: set[_Channel] = set()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def is_connected(self) -> bool:
        """Whether a WebSocket of it stands, as far as the client knows."""
        return bool(self._channels)

    @property
    def channels(self) -> int:
        """How many WebSockets of it stand."""
        return len(self._channels)

    # --- what is done ---------------------------------------------------------------------------

    def open(self, node: int) -> None:
        """Open the tab, unless it is open."""
        if not self.is_open:
            self.is_open, self._next = True, node
            self._changed.set()

    def close(self, how: str) -> None:
        """Close the tab."""
        self.is_open = False
        self._end_all(how)

    def lose(self, node: int, how: str) -> None:
        """Lose the network: the tab is still there, and comes back."""
        self._next = node
        self._end_all(how)

    def overtake(self, node: int) -> None:
        """Connect anew before the old WebSocket is closed."""
        if self.is_open:
            self._begin(self._overtake(node))

    def speak(self) -> None:
        """Have the kernel do something."""
        for channel in self._channels:
            channel.writer.write(_WORDS)

    async def echoes(self) -> bool:
        """Say whether a WebSocket really works; False as well when it is lost by that."""
        for channel in [*self._channels]:
            before = channel.echoed
            channel.writer.write(_PING)
            deadline = time.monotonic() + ANSWER_S
            while channel.echoed == before and not channel.ended.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110 -- bytes come when they come
                await asyncio.sleep(0.01)
            if channel.echoed == before or channel.ended.is_set():
                return False
        return self.is_connected

    async def run(self) -> None:
        """Come back whenever a WebSocket is lost; until cancelled."""
        try:
            while True:
                self._changed.clear()
                if not self.is_open or self._channels:
                    await self._changed.wait()
                    continue
                node, self._next = self._next, None
                await self._connect(self._chance.randrange(self._nodes) if node is None else node)
                if not self._channels:
                    await asyncio.sleep(self._chance.uniform(*_PAUSE_S))
        finally:
            self._end_all("RST")
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- how ------------------------------------------------------------------------------------

    async def _overtake(self, node: int) -> None:
        old = {*self._channels}
        if await self._connect(node):
            for channel in old:
                channel.end("FIN")

    async def _connect(self, node: int) -> bool:
        asked_at = time.time()
        try:
            async with asyncio.timeout(ANSWER_S):
                channel, status = await self._attempt(node)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.refusals[type(error).__name__] += 1
            return False
        if status != "101":
            self.refusals[status] += 1
            channel.end("FIN")
            return False
        self.seen.append(Seen(node, asked_at, time.time()))
        self._channels.add(channel)
        self._begin(self._follow(channel))
        if not self.is_open:
            channel.end("FIN")  # the tab was closed meanwhile
        return True

    async def _attempt(self, node: int) -> tuple[_Channel, str]:
        port = self._ports(node)
        if port is None:
            raise ConnectionRefusedError
        instance, kernel, session = self.key
        target = f"/jupyter/{instance}/api/kernels/{kernel}/channels?session_id={session}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(upgrade(target, token=self._user.token))
            head = await reader.readuntil(b"\r\n\r\n")
        except BaseException:  # also when cancelled: nobody else would close it
            writer.transport.abort()
            raise
        return _Channel(reader, writer), head.split(b" ", 2)[1].decode()

    async def _follow(self, channel: _Channel) -> None:
        try:
            await channel.read()
        finally:
            channel.writer.close()
            with suppress(ConnectionError):  # its end is looked at elsewhere
                await channel.writer.wait_closed()
            self._channels.discard(channel)
            self._changed.set()

    def _end_all(self, how: str) -> None:
        for channel in [*self._channels]:
            channel.end(how)
        self._changed.set()

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def ask(user: User, port: int) -> int | None:
    """Have a browser ask for something plain, as it does all the time; the status."""
    # A node may be dying at this moment: then there is no status.
    with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(
                    get(f"/jupyter/{user.instance}/api/status", "Connection: close", token=user.token)
                )
                head = await reader.readuntil(b"\r\n\r\n")
                return int(head.split(b" ", 2)[1])
            finally:
                writer.close()
                await writer.wait_closed()
    return None
