"""For which names we answer, and from whose pages a WebSocket may be opened.

A browser sends the cookie along with a WebSocket that any page opens; only `Origin` tells which
(RFC 6455 10.2). A name of the attacker's that resolves to us (DNS rebinding) is stopped by
`SERVER_NAMES`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from visa_jupyter_proxy.errors import Misdirected, OriginNotAllowed
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.http.request import Request

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LONGEST_KEPT: Final = 300
"""A name has 253 characters at most (RFC 1035 3.1); what is longer is none."""


class Site(NamedTuple):
    """An origin (RFC 6454), or a Host, in lower case."""

    scheme: str
    name: str
    port: int | None


class Sites:
    """The names of `SERVER_NAMES` and the origins of `ALLOWED_ORIGINS`."""

    def __init__(self, server_names: Sequence[str], allowed_origins: Sequence[str]) -> None:
        self._names = frozenset(name.lower() for name in server_names)
        self._allowed = frozenset(filter(None, (_site(origin) for origin in allowed_origins)))

    def check_host(self, request: Request) -> None:
        """Raise `Misdirected` for a Host that is none of ours; without `SERVER_NAMES` all are."""
        if self._names and (host := _site(f"//{_text(request.host)}")) and host.name in self._names:
            return
        if self._names:
            raise Misdirected("Host is none of SERVER_NAMES")

    def check_origin(self, request: Request, client: Client) -> None:
        """Raise `OriginNotAllowed` for a WebSocket with the cookie from another site's page.

        Without an Origin it is no browser's, and with a Bearer value no page could have sent it.
        """
        values = request.special.get(b"origin")
        if values is None or not request.credentials.is_cookie:
            return
        origin = _site(_text(values[0])) if len(values) == 1 else None
        host = _site(f"//{_text(client.host or request.host)}")
        if origin is None or host is None:
            raise OriginNotAllowed("no origin that could be compared")
        if origin not in self._allowed and not _same(origin, host, client):
            raise OriginNotAllowed("another origin")


def _same(origin: Site, host: Site, client: Client) -> bool:
    """Host without a port says nothing of the port; without a trusted proxy nothing tells the scheme."""
    return (
        origin.scheme in _DEFAULT_PORTS  # what is no page of the web is no page of this site
        and origin.name == host.name
        and (host.port is None or host.port == origin.port)
        and (not client.proto_is_known or origin.scheme == _text(client.proto))
    )


def _site(text: str) -> Site | None:
    # Parsing one takes 5 us, and a browser says the same each time.
    return _kept_site(text) if len(text) <= _LONGEST_KEPT else None


@lru_cache(maxsize=1024)
def _kept_site(text: str) -> Site | None:
    """Parse `scheme://name[:port]` or `//name[:port]`; None for anything else, such as `null`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return Site(parts.scheme, parts.hostname.lower(), port or _DEFAULT_PORTS.get(parts.scheme))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1")
