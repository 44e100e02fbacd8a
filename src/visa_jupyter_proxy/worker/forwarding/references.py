"""Addresses in a response, as the browser must see them.

A service knows neither its public prefix nor that it is behind a proxy, and its machine is controlled
by a user. So what it says of places is mapped back through the rewrite of that very request, and what
names the inside of the network loses that name. A value that already carries the public prefix is
left alone.

Browsers decide where a redirect leads, and one may lead anywhere on the site, as any link of a page
may. So values are read here as browsers read them.
"""

import re
from typing import Final

from visa_jupyter_proxy.routes import Match
from visa_jupyter_proxy.worker.forwarding.hosts import names_inside

_ABSOLUTE: Final = re.compile(
    rb"(?i)(?:(?:https?|wss?|ftp):[/\\]*|(?:[a-z][a-z0-9+.-]*+:)?[/\\]{2,})([^/\\?#]*)(.*)", re.DOTALL
)
r"""As browsers read it, who take `\` for `/` and need not have two of them (WHATWG URL 4.4)."""
_SCHEME: Final = re.compile(rb"(?i)[a-z][a-z0-9+.-]*+:")
_DOT_SEGMENT: Final = re.compile(rb"(?i)(?:\A|[/\\])(?:\.|%2e){1,2}(?:\Z|[/\\])")
_SLASH: Final = re.compile(rb"[/\\]")
_PATH: Final = re.compile(rb"[^?#]*")

_LONGEST_PATH: Final = 8 * 1024
"""In which dot segments are resolved: longer ones, which may have 30 000, no server is asked for."""

_MOST_ATTRIBUTES: Final = 32
"""Of a cookie; RFC 6265 and its drafts know nine. The rest is dropped, which may be 60 000 semicolons."""


def public_location(value: bytes, match: Match, instance: str, host: bytes | None) -> bytes:
    """Map a `Location` of `instance` (its address), for a request that named `host`."""
    value = value.replace(b"\t", b"")  # as browsers do, before they look at it (WHATWG URL 4.4)
    absolute = _ABSOLUTE.fullmatch(value)
    if absolute is None:
        return value if _SCHEME.match(value) else _public_path(value, match)
    authority, rest = absolute.groups()
    is_public = host is not None and authority.lower() == host.lower()
    if not is_public and not names_inside(authority, instance):
        return value  # elsewhere in the world, which is the service's own affair
    path = _public_path(rest if rest.startswith((b"/", b"\\")) else b"/" + rest, match)
    # A path with two slashes in front would be taken for a host.
    return value if is_public and path == rest else b"/" + path.lstrip(b"/\\")


def public_cookie(value: bytes, match: Match, target: bytes) -> bytes:
    """Keep a cookie inside the public prefix of its instance, and off other hosts (case 95).

    `target` is that of the request as the client sent it: a cookie without a path gets its folder.
    """
    pair, *attributes = value.split(b";", _MOST_ATTRIBUTES + 1)[: _MOST_ATTRIBUTES + 1]
    kept = [attribute for attribute in attributes if _name(attribute) not in (b"path", b"domain")]
    paths = [
        attribute.partition(b"=")[2].strip(b" \t") for attribute in attributes if _name(attribute) == b"path"
    ]
    folder = target.partition(b"?")[0].rpartition(b"/")[0]
    # The last one counts, and one that does not begin with a slash is none (RFC 6265 5.2.4).
    path = paths[-1] if paths and paths[-1].startswith(b"/") else None
    mapped = folder if path is None else _mapped(path, match)
    if path is None and _is_inside(mapped, match.prefix):
        return b";".join([pair, *kept])
    if not _is_inside(mapped, match.prefix):
        mapped = match.prefix
    return b";".join([pair, *kept, b" Path=" + mapped])


def _public_path(reference: bytes, match: Match) -> bytes:
    """Map a reference without an authority; the service has resolved it against what it was sent."""
    if match.public_root == match.sent_root:
        return reference
    path = _path_of(reference)
    is_absolute = path.startswith((b"/", b"\\"))
    if len(path) <= _LONGEST_PATH and _DOT_SEGMENT.search(path):
        folder = b"" if is_absolute else _path_of(match.target).rpartition(b"/")[0] + b"/"
        resolved = _without_dot_segments(folder + path) + reference[len(path) :]
    elif is_absolute:
        resolved = b"/" + reference[1:]
    else:
        return reference
    mapped = _mapped(resolved, match)
    return mapped if mapped != resolved or _is_inside(mapped, match.prefix) else reference


def _mapped(path: bytes, match: Match) -> bytes:
    """Undo the rewrite of the request, unless it has been undone."""
    if match.public_root == match.sent_root or _is_inside(path, match.prefix):
        return path
    if _is_inside(path, match.sent_root):
        return match.public_root + path[len(match.sent_root) :]
    return path


def _path_of(reference: bytes) -> bytes:
    found = _PATH.match(reference)
    return found[0] if found is not None else b""


def _without_dot_segments(path: bytes) -> bytes:
    """Remove them from an absolute path (RFC 3986 5.2.4), in any spelling that browsers know."""
    kept: list[bytes] = []
    plain = b""
    for segment in _SLASH.split(path)[1:]:
        plain = segment.lower().replace(b"%2e", b".")
        if plain == b"..":
            del kept[-1:]
        elif plain != b".":
            kept.append(segment)
    if plain in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _is_inside(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?", b"#")


def _name(attribute: bytes) -> bytes:
    return attribute.partition(b"=")[0].strip(b" \t").lower()
