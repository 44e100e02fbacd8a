"""The VISA access token in requests and cookies (contract section 3).

One rule for HTTP and WebSockets: a `Bearer` value, if present, decides alone; otherwise the
`access_token` cookie does. Whatever is ambiguous is no token.
"""

import re
from collections.abc import Iterable
from typing import Final

from visa_jupyter_proxy.errors import NoToken
from visa_jupyter_proxy.worker.http1 import Request

COOKIE: Final = b"access_token"

LONGEST_TOKEN: Final = 8 * 1024
"""Tomcat, which serves the VISA API, reads no longer header section by default."""

_B64TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 2.1: nothing in it can break out of a header field."""

_BEARER: Final = re.compile(rb"(?i)bearer(?![!#$%&'*+.^_`|~0-9a-z-])(?: +(.*))?", re.DOTALL)
"""The scheme is case-insensitive, one or more spaces follow (RFC 9110 11.4)."""


def access_token(request: Request) -> str:
    """Return the token of the request, not verified by anything. Raises `NoToken`."""
    authorization = request.one(b"authorization")
    bearer = _BEARER.match(authorization) if authorization is not None else None
    if bearer is not None:
        return _checked({bearer[1] or b""})
    return _checked(set(_cookie_values(request.special.get(b"cookie", ()))))


def uses_cookie(request: Request) -> bool:
    """Whether the browser sent the credential by itself, as it does for pages of other sites too."""
    authorization = request.one(b"authorization")
    return authorization is None or not _BEARER.match(authorization)


def without_bearer(values: Iterable[bytes]) -> list[bytes]:
    """Return the `Authorization` values that are not VISA's, such as Jupyter's own `token ...`."""
    return [value for value in values if not _BEARER.match(value)]


def without_token(cookies: Iterable[bytes]) -> list[bytes]:
    """Return the `Cookie` values without the token; every other byte stays, empty fields vanish."""
    kept = (_without_token(value) if COOKIE in value else value for value in cookies)
    return [value for value in kept if value]


def sets_token(set_cookie: bytes) -> bool:
    """Whether a `Set-Cookie` value would replace the token, nameless cookies included (case 95)."""
    pair = set_cookie.partition(b";")[0]
    return pair.lstrip(b"= \t").partition(b"=")[0].strip(b" \t") == COOKIE


def _checked(tokens: set[bytes]) -> str:
    if len(tokens) != 1:
        raise NoToken("several tokens that differ" if tokens else "no token")
    token = tokens.pop()
    if len(token) > LONGEST_TOKEN or not _B64TOKEN.fullmatch(token):
        raise NoToken("not the form of a token")
    return token.decode("ascii")


def _cookie_values(cookies: Iterable[bytes]) -> Iterable[bytes]:
    for line in cookies:
        if COOKIE in line:
            for pair in line.split(b";"):
                name, _, value = pair.partition(b"=")
                if name.strip(b" \t") == COOKIE:
                    yield value.strip(b" \t")


def _without_token(line: bytes) -> bytes:
    pairs = [pair for pair in line.split(b";") if pair.partition(b"=")[0].strip(b" \t") != COOKIE]
    return b";".join(pairs).strip(b" \t")
