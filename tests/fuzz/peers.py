"""Who talks to the proxy: clients and an instance with mutated messages, and a canary with plain ones."""

import asyncio
import errno
import re
import socket
import struct
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable
from hashlib import sha1
from itertools import count
from random import Random
from typing import Final

from fuzz.mutation import Stock, cut
from fuzz.seeds import SWITCHING

HANG_S: Final = 35.0
"""What may last longest is a client's FIN and then silence: 30 s (case 60), the tick, a slow machine."""

_LIFE_S: Final = 5.0
"""How long a connection of the mutated instance lives: a silent body has no deadline (case 190)."""

_READ: Final = 2**16
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ")
_TARGET: Final = re.compile(rb"GET (\S+) ")
_KEY: Final = re.compile(rb"(?i)sec-websocket-key:[ \t]*([^\r\n]*)")
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_REMEMBERED: Final = 2000
"""Messages that are written down when something is found."""


def chance(seed: str, who: str, number: int) -> Random:
    """Give the same numbers to the same peer of the same run."""
    return Random(f"{seed}/{who}/{number}")


class Log:
    """What was said, what came of it, and what must not have happened."""

    def __init__(self) -> None:
        self.messages = 0
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []
        self.longest = (0.0, "nobody")
        """Seconds that a client's connection has lasted, and whose."""
        self.recent: deque[tuple[str, bytes]] = deque(maxlen=_REMEMBERED)

    def said(self, who: str, message: bytes) -> None:
        """Count and remember a message."""
        self.messages += 1
        self.recent.append((who, message[:4096]))

    def heard(self, data: bytes) -> None:
        """Count the statuses in what a client got."""
        self.statuses.update(map(int, _STATUS.findall(data)))

    def problem(self, what: str) -> None:
        """Note what must not happen."""
        self.problems.append(what)


class Clients:
    """Connections to the proxy, one after the other in each of many tasks."""

    def __init__(self, seed: str, port: int, stock: Stock, log: Log) -> None:
        self._seed = seed
        self._port = port
        self._stock = stock
        self._log = log
        self._numbers = count(1)

    async def talk_until(self, over: Callable[[], bool]) -> None:
        """Open one connection after the other."""
        while not over():
            number = next(self._numbers)
            began = time.monotonic()
            try:
                async with asyncio.timeout(HANG_S):
                    await self._talk(f"client {number}", chance(self._seed, "client", number))
            except TimeoutError:
                self._log.problem(f"client {number}: its connection was not ended within {HANG_S} s")
            except ConnectionRefusedError:
                self._log.problem(f"client {number}: connection refused")
            except OSError as error:
                # A reset, as it may be; uvloop says the second of a FIN behind one.
                if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                    self._log.problem(f"client {number}: {error!r}")
            self._log.longest = max(self._log.longest, (time.monotonic() - began, f"client {number}"))

    async def _talk(self, who: str, random: Random) -> None:
        source = f"127.1.{random.randrange(4)}.{random.randrange(1, 255)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
        try:
            for _ in range(random.choice((1, 1, 1, 2, 3))):
                message = self._stock.message(random)
                self._log.said(who, message)
                await send(writer, random, message)
                if random.random() < 0.5:
                    await self._listen(reader, random.choice((0.01, 0.05, 0.2)))
            match random.choices(("leave", "reset", "finish", "stay"), (60, 20, 15, 5))[0]:
                case "leave":
                    await self._listen(reader, random.choice((0, 0.01, 0.1)))
                case "reset":
                    _reset_on_close(writer)
                case "finish":
                    _finish(writer)
                    await self._listen(reader, None)
                case _:
                    await self._listen(reader, None)
        finally:
            writer.transport.abort()

    async def _listen(self, reader: asyncio.StreamReader, seconds: float | None) -> None:
        """Read to the end, or for so long."""
        try:
            async with asyncio.timeout(seconds):
                while data := await reader.read(_READ):
                    self._log.heard(data)
        except TimeoutError:
            return


class MutatedInstance:
    """A server that answers anything to anything."""

    def __init__(self, seed: str, stock: Stock, log: Log) -> None:
        self.seen = 0
        """Heads of requests."""
        self._seed = seed
        self._stock = stock
        self._log = log
        self._numbers = count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Live the life of one connection."""
        number = next(self._numbers)
        random = chance(self._seed, "instance", number)
        try:
            async with asyncio.timeout(_LIFE_S):
                while await self._answer(f"instance {number}", random, reader, writer):
                    continue
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError among them
            pass  # the proxy has gone, or has been waiting for more of an answer: it may do so for ever
        finally:
            writer.transport.abort()

    async def _answer(
        self, who: str, random: Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request, if it is one; False when that was the last."""
        head = await _head(reader)
        self.seen += 1
        key = _KEY.search(head)
        answer = SWITCHING if key and random.random() < 0.7 else self._stock.message(random)
        if key:
            answer = answer.replace(b"@ACCEPT@", accept(key[1]))
        self._log.said(who, answer)
        # Now and then too late for RESPONSE_TIMEOUT_S.
        await asyncio.sleep(random.choices((0, 0.01, 3), (90, 8, 2))[0])
        await send(writer, random, answer)
        match random.choices(("again", "close", "reset", "drain", "echo"), (50, 20, 10, 10, 10))[0]:
            case "again":
                return True
            case "reset":
                _reset_on_close(writer)
            case "drain":
                while await reader.read(_READ):
                    continue
            case "echo":
                while data := await reader.read(_READ):
                    await send(writer, random, data)
            case _:
                _finish(writer)
        return False


class Canary:
    """Plain requests with plain answers: each must get its own, whatever the others do."""

    def __init__(self, port: int, target: str, token: str) -> None:
        self._port = port
        self._target = target
        self._token = token
        self._numbers = count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request with its target."""
        try:
            while found := _TARGET.match(await _head(reader)):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(found[1]), found[1]))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def sings(self) -> bool:
        """Ask once; False for anything but the right answer in time."""
        target = f"{self._target}/{next(self._numbers)}"
        request = (
            f"GET {target} HTTP/1.1\r\nHost: visa.test\r\nConnection: close\r\n"
            f"Cookie: access_token={self._token}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(HANG_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(request.encode())
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\n" + target.encode())


class Forbidden:
    """The instance of somebody else, which nobody may reach."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note that somebody has."""
        self._log.problem(f"a connection to somebody else's instance: {await reader.read(_READ)!r}")
        writer.transport.abort()


async def send(writer: asyncio.StreamWriter, random: Random, data: bytes) -> None:
    """Send in segments, in one turn of the loop or in several."""
    pieces = cut(random, data)
    at_once = random.random() < 0.5
    for piece in pieces:
        if writer.transport.is_closing():
            raise ConnectionResetError  # what uvloop says is RuntimeError
        writer.write(piece)
        if not at_once:
            await asyncio.sleep(0.001 if random.random() < 0.05 else 0)
    await writer.drain()


def filled(messages: Iterable[bytes], values: dict[str, str]) -> list[bytes]:
    """Put values in the places of their names."""
    found = []
    for message in messages:
        for name, value in values.items():
            message = message.replace(f"@{name}@".encode(), value.encode())  # noqa: PLW2901 -- step by step
        found.append(message)
    return found


def accept(key: bytes) -> bytes:
    """Answer a WebSocket key (RFC 6455 4.2.2)."""
    return b64encode(sha1(key.strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 -- the RFC's


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Read what ends with an empty line, or any piece of what never does."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return await reader.read(_READ)


def _finish(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.write_eof()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
