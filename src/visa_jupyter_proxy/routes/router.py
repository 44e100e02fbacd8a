"""From the target of a request to its route, its instance and the target to send.

Two things must never differ: the instance that is authorised and the one that is contacted, and the
path that was checked and the one that the instance understands. So targets are taken as they came,
never decoded or merged, and whatever some server could take for a dot segment is refused.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
import regress

from visa_jupyter_proxy.errors import BadRequest, NoRoute
from visa_jupyter_proxy.identifiers import LARGEST_INSTANCE
from visa_jupyter_proxy.routes.javascript import Replaced, Replacement
from visa_jupyter_proxy.routes.route import PLACEHOLDER, Route

_MOST_DIGITS: Final = len(str(LARGEST_INSTANCE))
"""Looked at first: Python refuses to read a number of thousands of digits."""

# Tomcat and its kin cut `;...` off a segment before they resolve it, some servers take `\` for `/`.
# The dot stands first because `re` is quick to find a literal; what is before it is looked at then.
_DOT_SEGMENT: Final = re.compile(rb"\.(?<![^/\\;]\.)\.?(?![^/\\;])")

# An ASCII character as a longer sequence than UTF-8 allows (RFC 3629 10): `%c0%ae` is a dot to some.
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]"
)


class Match(msgspec.Struct, frozen=True):
    """Where a request goes."""

    route: Route
    instance_id: int
    target: bytes
    """What to send: the target of the request after `pathRewrite`."""
    prefix: bytes
    """The path of the request up to and including the id, such as `/visafs/12`."""
    public_root: bytes = b""
    sent_root: bytes = b""
    """What `pathRewrite` put in the place of `public_root`; both empty when it changed nothing.

    With `/visafs/12/a` sent as `/a` it is nothing instead of `/visafs/12`: so a path `/b` that the
    service names is `/visafs/12/b` for the browser.
    """


class _Compiled:
    __slots__ = ("regex", "rewrites", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.regex = regress.Regex(route.match)
        self.rewrites = tuple(Replacement(rule.pattern, rule.replacement) for rule in route.path_rewrite)


class Router:
    """Finds the route of a request. `routes` are those of `load`: checked, so their patterns are valid."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._compiled = tuple(map(_Compiled, routes))
        # For an upgrade, the first route with `ws`; if none matches, the first route (contract section 1).
        self._for_websocket = tuple(sorted(self._compiled, key=lambda one: not one.route.ws))
        self.placeholders = frozenset(
            name
            for one in self._compiled
            for _, value in one.route.set_headers
            for name in PLACEHOLDER.findall(value)
        )
        """The names that any `setHeaders` asks for."""

    def match(self, target: bytes, *, websocket: bool) -> Match:
        """Return where `target` (in origin form, as it came) goes.

        `websocket`: the request is an upgrade; the route found may yet have no `ws`, then it is plain HTTP.
        Raises `BadRequest` for a dot segment in the path and for bytes beyond ASCII, and `NoRoute`.
        """
        path_end = target.find(b"?")
        if path_end < 0:
            path_end = len(target)
        if _has_dot_segment(target[:path_end]):
            raise BadRequest("a dot segment in the path")
        if not target.isascii():
            raise BadRequest("bytes beyond ASCII in the target")
        text = target.decode("ascii")
        for one in self._for_websocket if websocket else self._compiled:
            found = one.regex.find(text)
            if found is not None:
                group = found.group(1)
                if group is None:
                    raise NoRoute("the id is not in the target")
                prefix = target[: min(path_end, group.stop)]
                number = _instance_id(text[group])
                return Match(one.route, number, *_rewritten(one, text, target, path_end, prefix))
        raise NoRoute("no route matches")


def _instance_id(text: str) -> int:
    # One spelling for one instance: ASCII digits (the target is ASCII) without a leading zero.
    if (
        text.isdigit()
        and len(text) <= _MOST_DIGITS
        and text[0] != "0"
        and (number := int(text)) <= LARGEST_INSTANCE
    ):
        return number
    raise NoRoute("the id is no instance id")


def _rewritten(
    one: _Compiled, text: str, target: bytes, path_end: int, prefix: bytes
) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the last four fields of a `Match`."""
    for rule in one.rewrites:
        replaced = rule.apply(text)
        if replaced is not None:
            return _sendable(replaced, target, path_end, prefix)
    return target, prefix, b"", b""


def _sendable(
    replaced: Replaced, target: bytes, path_end: int, prefix: bytes
) -> tuple[bytes, bytes, bytes, bytes]:
    # A rule may take the first slash away, and the original sends one all the same.
    slash = b"" if replaced.text.startswith("/") else b"/"
    sent = slash + replaced.text.encode("ascii")
    # What is left of a path may be joined to a dot segment: `/x/1/a./b` without `x/1/a.` in the middle.
    if _has_dot_segment(sent.partition(b"?")[0]):
        raise BadRequest("a dot segment in the path, after pathRewrite")
    if replaced.old_end > path_end:
        return sent, prefix, b"", b""  # the query was part of it: no path can be mapped back
    roots = _without_common_end(target[: replaced.old_end], sent[: len(slash) + replaced.new_end])
    return sent, prefix, *roots


def _without_common_end(public: bytes, sent: bytes) -> tuple[bytes, bytes]:
    if public.endswith(b"/") and sent.endswith(b"/"):
        return public[:-1], sent[:-1]
    return public, sent


def _has_dot_segment(path: bytes) -> bool:
    # `in` takes eight times as long as `find`: it tries the operand as a number first (CPython 3.13).
    if path.find(b"%") >= 0:
        # Twice, as a server behind a server would; decoding takes no plain dot or slash away.
        path = _decoded(_decoded(path))
    return path.find(b".") >= 0 and _DOT_SEGMENT.search(path) is not None


def _decoded(path: bytes) -> bytes:
    return _OVERLONG.sub(_shortest, unquote_to_bytes(path))


def _shortest(found: re.Match[bytes]) -> bytes:
    # The last seven bits of an overlong sequence are those of its last two bytes.
    return bytes([((found[0][-2] & 0x01) << 6) | (found[0][-1] & 0x3F)])
