r"""A machine controlled by a user: a server that a test scripts, byte by byte.

    with Instance(port) as instance:          # on a loopback address of its own, at the given port
        instance.answer(b"HTTP/1.1 200 OK\r\n...")     # to every request from now on
        instance.play(lambda connection: ...)            # or: a function for each connection
        instance.requests                     # every request it has read, as `Message`
        instance.connections                  # how many connections it has accepted

A script runs in a thread of its own and gets a `Connection`. What it raises is raised when the
instance is closed, but for the proxy having gone.
"""

import errno
import hashlib
import itertools
import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from support.client import ConnectionEnded, Message, Reader

_PATIENCE_S: Final = 60.0
_addresses = itertools.count(1)

type Script = Callable[["Connection"], None]


def ok(body: bytes = b"ok", *fields: str) -> bytes:
    """Write a plain response."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


class Connection(Reader):
    """One connection of the proxy to the instance."""

    def __init__(self, instance: "Instance", sock: socket.socket) -> None:
        super().__init__(sock)
        self.instance = instance
        sock.settimeout(_PATIENCE_S)

    def request(self) -> Message:
        """Read the next request, body included, and record it."""
        message = self.message(is_request=True)
        self.instance.requests.append(message)
        return message

    def request_head(self) -> Message:
        """Read the head of the next request only, and record it."""
        message = self.message(is_request=True, no_body=True)
        self.instance.requests.append(message)
        return message

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def accept_websocket(self, *fields: str) -> Message:
        """Read a WebSocket request and answer 101."""
        request = self.request_head()
        self.send(switching(request, *fields))
        return request

    def echo(self) -> None:
        """Send back what comes, until the proxy has ended the connection."""
        while self.more():
            self.send(self.buffer)
            self.buffer = b""

    def finish(self) -> None:
        """Send FIN."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # the proxy has reset it already
                raise

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def switching(request: Message, *fields: str) -> bytes:
    """Write the right 101 to a WebSocket request."""
    key = request.one("sec-websocket-key") or b""
    accept = b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()  # noqa: S324 -- RFC 6455 4.2.2
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def echo(connection: Connection) -> None:
    """Answer plain requests, then echo what comes through a WebSocket; of sub-protocols, v1 is chosen."""
    while (request := connection.request()).one("upgrade") is None:
        connection.send(ok())
    chosen = ["Sec-WebSocket-Protocol: v1"] if request.all("sec-websocket-protocol") else []
    connection.send(switching(request, *chosen))
    connection.echo()


class Instance:
    """A listening socket on an address that no other instance of this run has."""

    def __init__(self, port: int) -> None:
        number = next(_addresses)
        self.host = f"127.77.{number // 250}.{number % 250 + 1}"
        self.port = port
        self.requests: list[Message] = []
        self.received: list[bytes] = []
        """What scripts chose to record besides."""
        self.connections = 0
        self._script: Script = _always(ok())
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self.listener: socket.socket | None = None
        """None while connections are refused."""
        self._closing = False

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self._failures:
            raise self._failures[0]

    def listen(self) -> None:
        """Begin to accept."""
        self.listener = socket.create_server((self.host, self.port), backlog=1024)
        thread = threading.Thread(target=self._accept, args=(self.listener,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def refuse(self) -> None:
        """Stop listening: connections are refused from now on."""
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None

    def close(self) -> None:
        """End everything, and wait for the threads."""
        self._closing = True
        self.refuse()
        for sock in [*self._open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended by itself
        for thread in self._threads:
            thread.join(_PATIENCE_S)
            assert not thread.is_alive(), "a script does not end"

    def play(self, script: Script) -> None:
        """Let `script` have every connection from now on."""
        self._script = script

    def answer(self, response: bytes) -> None:
        """Answer `response` to every request, on connections that stay open."""
        self.play(_always(response))

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; fail when it does not within 20 s."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(
                target=self._run, args=(Connection(self, sock), self._script), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: Connection, script: Script) -> None:
        try:
            script(connection)
        except (ConnectionEnded, ConnectionError):
            pass  # the proxy has gone
        except OSError as error:
            if not self._closing:
                self._failures.append(error)
        except BaseException as error:  # noqa: BLE001 -- raised in the test's own thread
            self._failures.append(error)
        finally:
            self._open.discard(connection.sock)
            connection.sock.close()


def _always(response: bytes) -> Script:
    def script(connection: Connection) -> None:
        while True:
            request = connection.request()
            connection.send(
                response if request.method != b"HEAD" else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            )

    return script
