"""The VISA access token in requests and cookies (contract section 3).

One rule for HTTP and WebSockets: a `Bearer` value, if present, decides alone; otherwise the
`access_token` cookie does. Whatever is ambiguous is no token.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from visa_jupyter_proxy.errors import NoToken
from visa_jupyter_proxy.worker.http.lines import Lines

COOKIE: Final = b"access_token"

LONGEST_TOKEN: Final = 8 * 1024
"""Tomcat, which serves the VISA API, reads no longer header section by default."""

_B64TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 2.1: nothing in it can break out of a header field."""

_PAIR: Final = re.compile(rb";[ \t]*+" + COOKIE + rb"[ \t]*+(?:=([^;]*+))?(?![^;])")
"""The token in a `Cookie` value with a `;` in front: 32 KiB of pairs, taken apart one by one, take 3 ms."""

_BEARER: Final = re.compile(rb"(?i)bearer(?![!#$%&'*+.^_`|~0-9a-z-])(?: +(.*))?", re.DOTALL)
"""The scheme is case-insensitive, one or more spaces follow (RFC 9110 11.4)."""


class AccessToken:
    """A token as it came, not verified by anything."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha256(text.encode("ascii")).digest()
        """Of the whole token: what it is remembered by."""

    def __repr__(self) -> str:
        return "AccessToken(...)"


class Credentials:
    """What a request shows of its user, and what of it an instance may see.

    It belongs to a field section, so it is taken apart once for all requests that show the same: that
    is a fifth of what our own code costs a small request.
    """

    def __init__(self, authorization: Sequence[bytes], cookies: Sequence[bytes]) -> None:
        """Take the values of the two fields."""
        self._authorization = authorization
        self._cookies = cookies

    @property
    def is_cookie(self) -> bool:
        """Whether the browser sent it by itself, as it does for pages of other sites too."""
        return not (self._authorization and _BEARER.match(self._authorization[-1]))

    @cached_property
    def token(self) -> AccessToken:
        """The access token. Raises `NoToken`."""
        bearer = _BEARER.match(self._authorization[-1]) if self._authorization else None
        if bearer is not None:
            return _checked({bearer[1] or b""})
        return _checked(set(_cookie_values(self._cookies)))

    @cached_property
    def lines(self) -> Lines:
        """The fields as they came."""
        return _lines(self._authorization, self._cookies)

    @cached_property
    def stripped_lines(self) -> Lines:
        """The fields without the access token, however often it came."""
        return _lines(without_bearer(self._authorization), without_token(self._cookies))


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


def _lines(authorization: Iterable[bytes], cookies: Iterable[bytes]) -> Lines:
    return [
        *(b"Authorization: %b\r\n" % value for value in authorization),
        *(b"Cookie: %b\r\n" % value for value in cookies),
    ]


def _checked(tokens: set[bytes]) -> AccessToken:
    if len(tokens) != 1:
        raise NoToken("several tokens that differ" if tokens else "no token")
    token = tokens.pop()
    if len(token) > LONGEST_TOKEN or not _B64TOKEN.fullmatch(token):
        raise NoToken("not the form of a token")
    return AccessToken(token.decode("ascii"))


def _cookie_values(cookies: Iterable[bytes]) -> Iterable[bytes]:
    for line in cookies:
        if COOKIE in line:
            for value in _PAIR.findall(b";" + line):
                yield value.strip(b" \t")


def _without_token(line: bytes) -> bytes:
    return _PAIR.sub(b"", b";" + line)[1:].strip(b" \t")
