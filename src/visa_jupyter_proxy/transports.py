"""What an event loop leaves out of a transport."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_READ_SIZE: Final = 64 * 1024


def unread(transport: asyncio.BaseTransport) -> Iterator[bytes]:
    """Yield what had arrived before the connection was lost; to be used in `connection_lost` only.

    When a write fails because the peer has closed, the loop gives up at once: what the peer said
    before is still in the kernel's buffer, which bounds it.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    with suppress(OSError):  # nothing more: the reset itself, or the loop has closed it
        while sock is not None and (data := os.read(sock.fileno(), _READ_SIZE)):
            yield data
