"""Single values of `proxy.conf.json`, and the words for what is wrong with them.

Each check returns what was given, or raises `BadValueError`.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy.routes import javascript
from visa_jupyter_proxy.routes.route import PLACEHOLDER, PLACEHOLDERS

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A field name (RFC 9110 5.6.2)."""

_FIELD_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
"""A field value without obs-text (RFC 9110 5.5): what every server understands."""

_TARGET: Final = re.compile(r"[!\"$-~]*")
"""What a replacement may put into a request target: visible ASCII, and no `#`."""

_OURS: Final = frozenset(
    {
        # framing and hop-by-hop (RFC 9110 7.6.1, RFC 9112 6)
        *("connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        # the handshake of a WebSocket (RFC 6455 4.1)
        *("sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key"),
        *("sec-websocket-protocol", "sec-websocket-version"),
        # who asks, and for what
        *("cookie", "forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port"),
        *("x-forwarded-proto", "x-forwarded-server", "x-real-ip", "x-request-id"),
    }
)
"""Fields that the proxy writes itself, or takes the token out of."""

_LARGEST_SIZE: Final = 2**62


class BadValueError(Exception):
    """A value that cannot be used; the text says what it is and what to write."""


def string(given: object) -> str:
    """Check for a text."""
    if not isinstance(given, str):
        raise BadValueError(f"is {kind(given)}: write a text in double quotes")
    if re.search("[\ud800-\udfff]", given):
        raise BadValueError(
            f"has half a character: {short(given)}: write both halves, or the character itself"
        )
    return given


def name(_where: str, given: object) -> str:
    """Check the name of a service."""
    name = string(given)
    if not name.strip() or not name.isprintable():
        raise BadValueError("is empty or has control characters: write a name, it stands in logs")
    return name


def size(_where: str, given: object) -> int:
    """Check a number of bytes."""
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _LARGEST_SIZE:
        raise BadValueError(f"is {kind(given)}: write a whole number of bytes, 0 or more")
    return given


def port(_where: str, given: object) -> int:
    """Check a TCP port."""
    if isinstance(given, bool) or not isinstance(given, int):
        raise BadValueError(f"is {kind(given)}: write a whole number from 1 to 65535, without quotes")
    if not 1 <= given <= 65535:
        raise BadValueError(f"{short(given)} is no port: write a whole number from 1 to 65535")
    return given


def flag(_where: str, given: object) -> bool:
    """Check for true or false."""
    if not isinstance(given, bool):
        raise BadValueError(f"is {kind(given)}: write true or false, without quotes")
    return given


def one_of(allowed: tuple[str, ...]) -> Callable[[str, object], str]:
    """Return the check for one of these words."""

    def check(_where: str, given: object) -> str:
        value = string(given)
        if value not in allowed:
            raise BadValueError(f"is {short(value)}: {nearest(value, allowed)}")
        return value

    return check


def pattern(given: object) -> str:
    """Check for a JavaScript pattern."""
    pattern = string(given)
    try:
        javascript.check(pattern)
    except javascript.PatternError as error:
        raise BadValueError(f"is no JavaScript regular expression: {error}: {short(pattern)}") from None
    return pattern


def replacement(given: object) -> None:
    """Check what is put in place of a match of `pathRewrite`."""
    if not _TARGET.fullmatch(string(given)):
        raise BadValueError("is no part of an address: write visible ASCII characters without `#`")


def field_name(name: str) -> None:
    """Check the name of a field that a route may set."""
    if not _TOKEN.fullmatch(name):
        raise BadValueError("is no field name: write letters, digits and hyphens, without a colon")
    # Some servers read `_` and `.` as `-`: such a name would be one of these to them.
    if re.sub("[_.]", "-", name.lower()) in _OURS:
        raise BadValueError("is a field that the proxy writes itself: remove it")


def field_value(given: object) -> None:
    """Check the value of a field that a route may set."""
    # A value may be a secret, so no mistake shows it.
    value = string(given)
    if not _FIELD_VALUE.fullmatch(value):
        raise BadValueError("has no valid value: write visible ASCII on one line, no space at its ends")
    for name in PLACEHOLDER.findall(value):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise BadValueError(f"names a placeholder that is unknown: write one of {known}")


# --- words --------------------------------------------------------------------------------


def kind(given: object) -> str:
    """Say what type a JSON value has."""
    match given:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "an array"
        case _:
            return "an object"


def step(key: str) -> str:
    """Say one step of a JSON path."""
    return f".{key}" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else f"[{short(key)}]"


def short(given: str | int) -> str:
    """Show a value, on one line and not too long."""
    shown = json.dumps(given)
    return shown if len(shown) <= 80 else shown[:80] + "..."


def nearest(given: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or all of them."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), lower, n=1, cutoff=0.6)
    return f"write `{lower[near[0]]}`" if near else f"the known ones are {', '.join(lower.values())}"
