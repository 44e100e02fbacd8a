r"""A client that sends any bytes, in any pieces, and reads what comes back, as bytes.

with RawClient(port) as client:
    client.send(b"GET / HTTP/1.1\r\n...")
    client.send_in_pieces(data, 1)
    response = client.response()          # one message, framed as RFC 9112 says
    client.closed()                       # True when the server has closed, and nothing more came
"""

import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

_PATIENCE_S: Final = 20.0


class ConnectionEnded(Exception):
    """The server closed in the middle of a message; the argument is what had come."""


@dataclass(frozen=True)
class Message:
    """A response, or at an instance a request, taken apart."""

    start_line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    head: bytes = b""
    """The bytes of the head as they came."""

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.start_line.split(b" ", 2)[1])

    @property
    def method(self) -> bytes:
        """The method of a request."""
        return self.start_line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """The target of a request."""
        return self.start_line.split(b" ")[1]

    def all(self, name: str) -> list[bytes]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    def one(self, name: str) -> bytes | None:
        """Give the only value of a field, None without one."""
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None


class Reader:
    """Reads messages from a blocking socket, by RFC 9112."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.was_reset = False
        """Whether the end was a reset."""

    def more(self) -> bool:
        """Read once; False at the end. A reset is an end too."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            self.was_reset = True
            return False
        self.buffer += data
        return bool(data)

    def exactly(self, count: int) -> bytes:
        """Take `count` bytes."""
        pieces, missing = [self.buffer], count - len(self.buffer)
        while missing > 0:
            self.buffer = b""
            if not self.more():
                raise ConnectionEnded(b"".join(pieces))
            pieces.append(self.buffer)
            missing -= len(self.buffer)
        data = b"".join(pieces)
        taken, self.buffer = data[:count], data[count:]
        return taken

    def through(self, mark: bytes) -> bytes:
        """Take everything up to and with `mark`."""
        while mark not in self.buffer:
            if not self.more():
                raise ConnectionEnded(self.buffer)
        return self.exactly(self.buffer.index(mark) + len(mark))

    def rest(self) -> bytes:
        """Take everything until the end."""
        while self.more():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def message(self, *, no_body: bool = False, is_request: bool = False) -> Message:
        """Take one message. Raises `ConnectionEnded` when it ends too early."""
        head = self.through(b"\r\n\r\n")
        start_line, *lines = head[:-4].split(b"\r\n")
        fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        message = Message(start_line, fields, head=head)
        if no_body or (not is_request and (message.status < 200 or message.status in (204, 304))):
            return message
        if message.one("transfer-encoding") is not None:
            body, trailers = self.chunks()
            return Message(start_line, fields, body, trailers, head)
        length = message.one("content-length")
        if length is not None:
            return Message(start_line, fields, self.exactly(int(length)), head=head)
        return message if is_request else Message(start_line, fields, self.rest(), head=head)

    def chunks(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Take a chunked body and its trailers."""
        body = b""
        while size := int(self.through(b"\r\n")[:-2], 16):
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        trailers = []
        while (line := self.through(b"\r\n")[:-2]) != b"":
            name, _, value = line.partition(b":")
            trailers.append((name, value.strip()))
        return body, trailers


class RawClient(Reader):
    """One connection to the proxy."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        super().__init__(socket.create_connection((host, port), timeout=_PATIENCE_S))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send it in segments of `size` bytes; a server that has closed meanwhile is no error."""
        try:
            for start in range(0, len(data), size):
                self.sock.sendall(data[start : start + size])
        except ConnectionError:
            pass

    def response(self, *, to_head: bool = False) -> Message:
        """Take the next response, 1xx included."""
        return self.message(no_body=to_head)

    def ask(self, data: bytes) -> Message:
        """Send a request, and take the response to it."""
        self.send(data)
        return self.response(to_head=data.startswith(b"HEAD "))

    def finish(self) -> None:
        """Send FIN: nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def closed(self) -> bool:
        """Wait for the end; True when nothing came before it."""
        return self.rest() == b""


def get(
    target: str, *fields: str, host: str = "visa.test", method: str = "GET", token: str | None = None
) -> bytes:
    """Write a request without a body."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if token is not None:
        lines.append(f"Cookie: access_token={token}")
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


def upgrade(target: str, *fields: str, token: str | None = None, host: str = "visa.test") -> bytes:
    """Write a WebSocket request."""
    return get(
        target,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *fields,
        token=token,
        host=host,
    )
