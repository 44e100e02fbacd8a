"""The bytes that clients send: a browser's request, a token of the usual size, WebSocket frames."""

import base64
import json
import struct
import uuid
from typing import Final

TOKEN_BYTES: Final = 1200
"""Length of an access token of Keycloak with a few roles in it."""

_EXPIRES: Final = 4_102_444_800  # in the year 2100: no grant is shortened

FIELDS: Final[dict[str, str]] = {
    "Host": "visa.example.org",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.8,fr-FR;q=0.5,fr;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "http://visa.example.org/jupyter/1/lab/tree/experiment.ipynb",
    "X-XSRFToken": "2|7c1d2f0a|0f9a6b3c5d8e1f2a4b6c8d0e2f4a6b8c|1700000000",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
"""What Firefox sends with a request of JupyterLab; the cookie comes on top."""

_UPGRADE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Origin": "http://visa.example.org",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "v1.kernel.websocket.jupyter.org",
}

BINARY: Final = 0x82
"""First byte of a binary message in one frame (RFC 6455 5.2)."""

CLOSE: Final = 0x88


def token(serial: int) -> str:
    """Make an access token of the usual size; each serial number is another token of the same user."""

    def encoded(part: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()

    header = encoded({"alg": "RS256", "typ": "JWT", "kid": "benchmark"})
    claims = {"exp": _EXPIRES, "jti": f"{serial:032x}", "sub": str(uuid.UUID(int=1)), "azp": "visa"}
    text = f"{header}.{encoded(claims)}."
    return text + "s" * (TOKEN_BYTES - len(text))


def cookie(serial: int = 0) -> str:
    """Make the value of a browser's `Cookie` field."""
    return f"_xsrf=2|7c1d2f0a|0f9a6b3c5d8e1f2a; access_token={token(serial)}; theme=dark"


def request(
    target: str, method: str = "GET", serial: int = 0, length: int | None = None, *, close: bool = False
) -> bytes:
    """Make the head of a request."""
    fields = FIELDS | {"Cookie": cookie(serial)}
    if length is not None:
        fields |= {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
    if close:
        fields |= {"Connection": "close"}
    return _head(f"{method} {target} HTTP/1.1", fields)


def upgrade(target: str, serial: int = 0) -> bytes:
    """Make the request that opens a WebSocket."""
    return _head(f"GET {target} HTTP/1.1", FIELDS | _UPGRADE | {"Cookie": cookie(serial)})


def _head(line: str, fields: dict[str, str]) -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode()


def frame(payload: bytes, first: int = BINARY, *, masked: bool) -> bytes:
    """Make a WebSocket frame. The mask is zero: no proxy looks under it, and our echo need not either."""
    bit, size = 0x80 if masked else 0, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (bytes(4) if masked else b"") + payload
