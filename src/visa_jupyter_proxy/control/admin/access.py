"""Who may ask the admin listener.

With `ADMIN_TOKEN`, whoever has it. Browsers send it only when a script of our own page does, so no other
site can have them do anything here. Without it the listener is on loopback, and every program on this
machine may ask, browsers included; then other sites are kept out in three ways, each enough alone for
what changes something:

- `Host` must name this machine. A site whose name has been pointed at 127.0.0.1 (DNS rebinding) is the
  same origin as this listener for a browser, but the browser sends its name.
- What browsers say of themselves (`Sec-Fetch-Site`, `Origin`) must not name another site.
- Nothing is changed by GET or POST, and no answer carries a CORS field: for DELETE a browser asks first,
  and gets no permission.
"""

import hmac
import ipaddress
from typing import Final

from aiohttp import web

from visa_jupyter_proxy.control.admin.answers import Refused

_OPEN: Final = ("/", "/health/live", "/health/ready")
"""Paths without a token: probes have none, and the board's page holds nothing but the form for it."""

_SAME_SITE: Final = frozenset({"same-origin", "none"})


class Access:
    """The rules of one listener."""

    def __init__(self, host: str, token: str | None) -> None:
        """`host` is what the listener was told to listen on, `token` what is asked for."""
        self._host = host.rstrip(".").lower()
        self._token = None if token is None else token.encode()

    def check(self, request: web.BaseRequest) -> None:
        """Raise `Refused` unless the request may go on."""
        if self._token is None and not self._is_here(request.host):
            raise Refused(421, "misdirected", "Ask for it as localhost, or set ADMIN_TOKEN.")
        if not _is_of_this_site(request):
            raise Refused(403, "cross_site", "Pages of other sites may not ask here.")
        if self._token is not None and request.path not in _OPEN and not self._knows(request):
            refused = Refused(401, "no_token", "Send `Authorization: Bearer` with ADMIN_TOKEN.")
            refused.fields["WWW-Authenticate"] = "Bearer"
            raise refused

    def _is_here(self, authority: str) -> bool:
        host = _name(authority)
        if host in ("localhost", self._host):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def _knows(self, request: web.BaseRequest) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token or b"")


def _name(authority: str) -> str:
    """Take the port off, and the brackets of an IPv6 address."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].rstrip(".").lower()


def _is_of_this_site(request: web.BaseRequest) -> bool:
    is_read = request.method in ("GET", "HEAD")
    site = request.headers.get("Sec-Fetch-Site")
    # A link on another page may lead to the board: that shows it to nobody but who follows the link.
    is_link = is_read and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site is not None and site not in _SAME_SITE and not is_link:
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.host.lower()
