"""WebSocket: how one is asked for and accepted, and where its frames begin (RFC 6455)."""

import base64
import hashlib
import re
from typing import Final

from visa_jupyter_proxy.errors import BadRequest, UpgradeRequired
from visa_jupyter_proxy.worker.http1 import Request, Response, options, response_head
from visa_jupyter_proxy.worker.lines import Lines

UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""The hop-by-hop fields of both halves of a handshake (RFC 6455 1.3)."""

_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def asks_for_websocket(request: Request) -> bool:
    """Whether to upgrade. Any other protocol is not one of ours, and is ignored (RFC 9110 7.8).

    Raises `BadRequest` and `UpgradeRequired` for an invalid handshake (RFC 6455 4.2.1).
    """
    if b"upgrade" not in request.connection or request.method != b"GET" or request.minor == 0:
        return False
    if b"websocket" not in options(request.special.get(b"upgrade")):
        return False
    if request.has_body:
        raise BadRequest("WebSocket request with a body")
    keys = request.special.get(b"sec-websocket-key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequest("bad Sec-WebSocket-Key")
    if request.special.get(b"sec-websocket-version") != [b"13"]:
        raise UpgradeRequired("another WebSocket version")
    return True


def accepts_websocket(request: Request, response: Response) -> bool:
    """Whether a 101 is the right answer to this very WebSocket request (RFC 6455 4.1)."""
    key = request.one(b"sec-websocket-key") or b""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return (
        b"upgrade" in response.connection
        and options(response.special.get(b"upgrade")) == [b"websocket"]
        and response.special.get(b"sec-websocket-accept") == [base64.b64encode(digest)]
    )


def switching_protocols(lines: Lines) -> bytes:
    """Compose the 101 with which a tunnel begins; `lines` are the end-to-end ones."""
    return response_head(101, b"Switching Protocols", [*lines, UPGRADE])
