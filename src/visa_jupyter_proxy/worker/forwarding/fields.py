"""Which fields go on, in both directions.

The message that came is never modified; the fields to send are made here, in this order: what may
pass as it came, then what we vouch for.
"""

import re
from typing import Final

from visa_jupyter_proxy.errors import InstanceNotReady
from visa_jupyter_proxy.routes import PLACEHOLDER, Match, Route
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.forwarding.references import public_cookie, public_location
from visa_jupyter_proxy.worker.http.credentials import Credentials, sets_token
from visa_jupyter_proxy.worker.http.lines import Fields, Lines, name_of, plain
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.response import Response
from visa_jupyter_proxy.worker.http.sections import (
    FORWARDED,
    HOP_BY_HOP,
    NGINX_COMMANDS,
    REQUEST_SPECIAL,
    RESPONSE_SPECIAL,
)
from visa_jupyter_proxy.worker.http.websocket import UPGRADE

_LOCATIONS: Final = ((b"location", b"Location"), (b"content-location", b"Content-Location"))
_MAPPED: Final = frozenset({b"location", b"content-location", b"set-cookie"})
"""Fields of a response that name places: most have none of them."""
_VISIBLE: Final = re.compile(r"[!-~]+")

_NOT_IN_TRAILERS: Final = (
    REQUEST_SPECIAL
    | RESPONSE_SPECIAL
    | {
        b"age",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"date",
        b"expect",
        b"expires",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"range",
        b"retry-after",
        b"vary",
        b"warning",
        b"www-authenticate",
    }
)
"""Fields for framing, routing, authentication and processing must not come late (RFC 9110 6.5.1)."""
_FAMILIES_NOT_IN_TRAILERS: Final = (FORWARDED, NGINX_COMMANDS, b"access-control-", b"if-", b"sec-")


def request_lines(
    request: Request,
    match: Match,
    grant: Grant,
    client: Client,
    *,
    request_id: bytes,
) -> Lines:
    """Make the fields of the request to the instance. Raises `InstanceNotReady`, see `_filled`."""
    route, passing = match.route, request.section.passing
    prefix = match.public_root if not match.sent_root else b""
    said = (client, route, grant, prefix, request.minor)
    if not isinstance(passing, _Passing) or passing.said != said:
        passing = request.section.passing = _Passing(said, _repeated(request, route, grant, client, prefix))
    return [
        passing.lines,
        request.key_line,
        b"X-Request-Id: " + request_id + b"\r\n",
        _framing(request, route),
    ]


class _Passing:
    """What goes on of a field section, with what is added to it: the same for each request that has it.

    Kept, and not made anew, it takes 10 000 instructions less.
    """

    __slots__ = ("lines", "said")

    def __init__(self, said: tuple[object, ...], lines: Lines) -> None:
        """`said` is what the lines were made of, besides the section."""
        self.said = said
        self.lines = b"".join(lines)


def _repeated(request: Request, route: Route, grant: Grant, client: Client, prefix: bytes) -> Lines:
    host = request.host
    lines = [
        *_passing(request, route),
        *_credential_lines(request.credentials, route),
        b"Host: %b\r\n" % (host if host is not None else _authority(grant.host)),
        client.lines,
    ]
    if forwarded_host := client.host or host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % forwarded_host)
    if prefix:
        lines.append(b"X-Forwarded-Prefix: %b\r\n" % prefix)
    for name, template in route.set_headers:
        lines.append(f"{name}: {_filled(template, grant)}\r\n".encode())
    return lines


def response_lines(response: Response, request: Request, match: Match, grant: Grant, client: Client) -> Lines:
    """Make the fields of the response to the client, without those of the connection."""
    lines = [response.section.passing, response.own_lines]
    if not _MAPPED.isdisjoint(response.special):
        lines += _mapped(response, request, match, grant, client)
    if b"service-worker" in request.special:
        lines.append(_worker_scope(match))
    return lines


def _mapped(response: Response, request: Request, match: Match, grant: Grant, client: Client) -> Lines:
    """Make the fields that name places, as the browser must see them."""
    lines, special = [], response.special
    for key, name in _LOCATIONS:
        for value in special.get(key, ()):
            location = public_location(value, match, grant.host, client.host or request.host)
            lines.append(b"%b: %b\r\n" % (name, location))
    lines += [
        b"Set-Cookie: %b\r\n" % public_cookie(value, match, request.target)
        for value in special.get(b"set-cookie", ())
        if not sets_token(value)
    ]
    return lines


def _worker_scope(match: Match) -> bytes:
    """Keep a service worker to the pages of its own instance.

    It outlives its page, and without this field it controls the folder of its script: for
    `/jupyter/12.js`, which is instance 12's, that would be every instance.
    """
    return b"Service-Worker-Allowed: %b/\r\n" % match.prefix


def trailer_fields(trailers: Fields) -> Fields:
    """Drop what must not be in a trailer section, and whatever imitates it."""
    return [(name, value) for name, value in trailers if not _is_forbidden_trailer(name)]


def request_trailers(trailers: Fields, route: Route) -> Fields:
    """Drop, besides, what the route sets itself: a server may take a trailer for a field."""
    replaced = _replaced(route)
    return [field for field in trailer_fields(trailers) if plain(field[0].lower()) not in replaced]


def _is_forbidden_trailer(name: bytes) -> bool:
    key = plain(name.lower())
    return key in _NOT_IN_TRAILERS or key.startswith(_FAMILIES_NOT_IN_TRAILERS)


def _authority(address: str) -> bytes:
    return f"[{address}]".encode() if ":" in address else address.encode()


def _passing(request: Request, route: Route) -> Lines:
    lines = request.lines
    if request.minor == 0:
        lines = [line for line in lines if name_of(line) != b"expect"]  # RFC 9110 10.1.1
    if route.set_headers:
        replaced = _replaced(route)
        lines = [line for line in lines if plain(name_of(line)) not in replaced]
    return lines


def _replaced(route: Route) -> set[bytes]:
    return {plain(name.lower().encode()) for name, _ in route.set_headers}


def _credential_lines(credentials: Credentials, route: Route) -> Lines:
    lines = credentials.stripped_lines if route.strip_credentials else credentials.lines
    if any(name.lower() == "authorization" for name, _ in route.set_headers):
        return [line for line in lines if name_of(line) != b"authorization"]
    return lines


def _framing(request: Request, route: Route) -> bytes:
    if request.websocket and route.ws:
        return UPGRADE
    if request.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % request.length if request.length is not None else b""


def _filled(template: str, grant: Grant) -> str:
    def value(name: re.Match[str]) -> str:
        found = grant.values.get(name[1], "")
        if not _VISIBLE.fullmatch(found):
            raise InstanceNotReady(f"the API gave no usable value for {name[0]}")
        return found

    return PLACEHOLDER.sub(value, template)


assert HOP_BY_HOP <= _NOT_IN_TRAILERS  # noqa: S101 -- a fact about constants, checked once at import
