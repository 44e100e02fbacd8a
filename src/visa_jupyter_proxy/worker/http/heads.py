"""What we add to the head of an answer: how its body ends, and what becomes of the connection.

The fields that come from the instance, or from our own pages, stand before these; `fields` and `pages` make
them. Nothing here knows of an exchange.
"""

from typing import Final

from visa_jupyter_proxy.worker.http.lines import Lines
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.response import Response, response_head

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""A head of its own."""

CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"

_CLOSE: Final = b"Connection: close\r\n"
_KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"


def framing(response: Response, request: Request) -> bytes | None:
    """Frame the response for this client (RFC 9112 6).

    Returns `CHUNKED`, another field, nothing where there is no body, or None: it ends with the connection.
    """
    if response.status == 204:
        return b""
    if response.length is not None:
        return response.section.length_line
    if request.method == b"HEAD" or response.status == 304:
        return b""
    return CHUNKED if request.minor == 1 else None


def final_head(status: int, reason: bytes, lines: Lines, request: Request, keeps: bool) -> bytes:
    """Compose a head; it says what becomes of the connection if the client does not know (RFC 9112 9.3)."""
    if not keeps:
        lines.append(_CLOSE)
    elif request.minor == 0:
        lines.append(_KEEP_ALIVE)
    return response_head(status, reason, lines)
