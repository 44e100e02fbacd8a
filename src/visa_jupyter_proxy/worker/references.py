"""Addresses in a response, as the browser must see them.

A service knows neither its public prefix nor that it is behind a proxy, and its machine is controlled
by a user. So what it says of places is mapped back through the rewrite of that very request, and what
names the inside of the network loses that name. A value that already carries the public prefix is
left alone.
"""

import ipaddress
import re
from typing import Final

from visa_jupyter_proxy.routes import Match

_ABSOLUTE: Final = re.compile(rb"(?i)(?:https?:[/\\]*|[/\\]{2,})([^/\\?#]*)(.*)", re.DOTALL)
r"""As browsers read it, who take `\` for `/` and need not have two of them (WHATWG URL 4.4)."""
_PORT: Final = re.compile(rb":[0-9]*$")


def public_location(value: bytes, match: Match, instance: str, host: bytes | None) -> bytes:
    """Map a `Location` of `instance` (its address), for a request that named `host`."""
    absolute = _ABSOLUTE.fullmatch(value)
    if absolute is None:
        return _public_path(value, match)
    authority, rest = absolute.groups()
    is_public = host is not None and authority.lower() == host.lower()
    if not is_public and not _is_internal(authority, instance):
        return value  # elsewhere in the world, which is the service's own affair
    path = _public_path(rest if rest.startswith(b"/") else b"/" + rest, match)
    # A path with two slashes in front would be taken for a host.
    return value if is_public and path == rest else b"/" + path.lstrip(b"/\\")


def public_cookie(value: bytes, match: Match, target: bytes) -> bytes:
    """Keep a cookie inside the public prefix of its instance, and off other hosts (case 95).

    `target` is that of the request as the client sent it: a cookie without a path gets its folder.
    """
    pair, *attributes = value.split(b";")
    kept = [attribute for attribute in attributes if _name(attribute) not in (b"path", b"domain")]
    paths = [
        attribute.partition(b"=")[2].strip(b" \t") for attribute in attributes if _name(attribute) == b"path"
    ]
    folder = target.partition(b"?")[0].rpartition(b"/")[0]
    # The last one counts, and one that does not begin with a slash is none (RFC 6265 5.2.4).
    path = paths[-1] if paths and paths[-1].startswith(b"/") else None
    mapped = folder if path is None else _public_path(path, match)
    if path is None and _is_inside(mapped, match.prefix):
        return b";".join([pair, *kept])
    if not _is_inside(mapped, match.prefix):
        mapped = match.prefix
    return b";".join([pair, *kept, b" Path=" + mapped])


def _public_path(path: bytes, match: Match) -> bytes:
    if not path.startswith(b"/") or _is_inside(path, match.prefix) or match.public_root == match.sent_root:
        return path
    if _is_inside(path, match.sent_root):
        return match.public_root + path[len(match.sent_root) :]
    return path


def _is_inside(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?", b"#")


def _is_internal(authority: bytes, instance: str) -> bool:
    name = _PORT.sub(b"", authority.rpartition(b"@")[2]).strip(b"[]").decode("latin-1").lower()
    if name in ("", "localhost", instance):
        return True
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return False


def _name(attribute: bytes) -> bytes:
    return attribute.partition(b"=")[0].strip(b" \t").lower()
