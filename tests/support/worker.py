"""A worker process without control: the test is at the other end of its mailbox.

with running_worker(start) as worker:
    worker.port
    worker.tell(EndTunnels(code=1008, reason="x"))
    worker.until(lambda: worker.told(TunnelEnded))
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from visa_jupyter_proxy.mailbox import Drain, Message, Ready, Start, Upwards

_PATIENCE_S: Final = 60.0


class RunningWorker:
    """One worker, what it has said, and the listening socket that it has inherited."""

    def __init__(self, start: Start) -> None:
        self.messages: list[Message] = []
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(listener.getsockname()[1])
        self._pipe, theirs = socket.socketpair()
        with listener, theirs:
            descriptors = [listener.fileno(), theirs.fileno()]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "visa_jupyter_proxy.worker", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
        self._decoder: msgspec.msgpack.Decoder[Upwards] = msgspec.msgpack.Decoder(Upwards)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.tell(start)
        self.until(lambda: self.told(Ready))

    def tell(self, message: Message) -> None:
        """Send a message."""
        body = msgspec.msgpack.encode(message)
        self._pipe.sendall(len(body).to_bytes(4, "big") + body)

    def told[T: Message](self, kind: type[T]) -> list[T]:
        """Give the messages of one kind that have come."""
        return [message for message in [*self.messages] if isinstance(message, kind)]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; fail when it does not within a minute."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {self.messages}"
            time.sleep(0.005)

    def stop(self, seconds: float = 0.0) -> int:
        """Have it drain, and give its exit status."""
        if self.process.poll() is None:
            self.tell(Drain(seconds=seconds))
        status = self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        self._pipe.close()
        return status

    def _read(self) -> None:
        buffer = b""
        while data := self._pipe.recv(65536):
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
                self.messages.append(self._decoder.decode(buffer[4:end]))
                buffer = buffer[end:]


@contextmanager
def running_worker(start: Start) -> Iterator[RunningWorker]:
    """Run a worker; afterwards it is gone in any case."""
    worker = RunningWorker(start)
    try:
        yield worker
        assert 0 == worker.stop()
    finally:
        worker.process.kill()
        worker.process.wait()
