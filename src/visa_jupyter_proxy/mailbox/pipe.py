"""The pipe between control and a worker: one duplex socket pair for each worker.

A message is a four-byte length (big-endian) and a MessagePack map whose `type` names the class.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast, override

import msgspec

from visa_jupyter_proxy.mailbox.downwards import Downwards
from visa_jupyter_proxy.mailbox.upwards import Upwards
from visa_jupyter_proxy.transports import unread

_LENGTH: Final = 4
_LARGEST: Final = 16 * 2**20
"""Far beyond any message (the largest is `Start`): a length beyond it means that the stream is broken."""

type Message = Downwards | Upwards

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Mailbox(asyncio.Protocol):
    """One end of the pipe.

    `received` is called with the mailbox and each message, in order, from before `open` returns; `lost`
    once, when the other process is gone.
    Neither may raise.
    """

    def __init__(self, received: Callable[["Mailbox", Message], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._outgoing = bytearray()
        """Sent, and not written yet."""
        self._closed = asyncio.Event()

    @classmethod
    async def open(
        cls, sock: socket.socket, received: Callable[["Mailbox", Message], None], lost: Callable[[], None]
    ) -> "Mailbox":
        """Take over `sock` (one half of a socket pair), which belongs to the mailbox from here on."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, mailbox = await loop.create_connection(lambda: cls(received, lost), sock=sock)
        return mailbox

    def send(self, message: Message) -> None:
        """Send without waiting; dropped when the other process is gone (`lost` has said so).

        What is sent in one turn of the loop is written at its end, all at once: that wakes the other process
        once. `flush` does not wait for it.
        """
        if self._transport is not None:
            if not self._outgoing:
                asyncio.get_running_loop().call_soon(self.flush)
            body = _encoder.encode(message)
            self._outgoing += len(body).to_bytes(_LENGTH, "big") + body

    def flush(self) -> None:
        """Write what has been sent: this process may end now, and the other one will read it all the same."""
        if self._transport is not None and self._outgoing:
            self._transport.write(bytes(self._outgoing))
            self._outgoing.clear()

    async def close(self) -> None:
        """Close after what was sent has been written, or when the other process is gone."""
        if self._transport is not None:
            self.flush()
            self._transport.close()
        await self._closed.wait()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop derives its own from nothing

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH:
            length = int.from_bytes(self._buffer[:_LENGTH], "big")
            if length > _LARGEST:
                raise ValueError(f"a message of {length} bytes: the mailbox is out of step")
            if len(self._buffer) < _LENGTH + length:
                return
            body = bytes(self._buffer[_LENGTH : _LENGTH + length])
            del self._buffer[: _LENGTH + length]
            self._received(self, _decoder.decode(body))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if exc is not None and transport is not None:
            for data in unread(transport):  # a write has failed: what the other process said before counts
                self.data_received(data)
        self._closed.set()
        self._lost()
