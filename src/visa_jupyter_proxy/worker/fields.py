"""Which fields go on, in both directions.

The message that came is never modified; the fields to send are made here, in this order: what may
pass as it came, then what we vouch for.
"""

import re
from typing import Final

from visa_jupyter_proxy.errors import InstanceNotReady
from visa_jupyter_proxy.routes import PLACEHOLDER, Match, Route
from visa_jupyter_proxy.worker.credentials import sets_token, without_bearer, without_token
from visa_jupyter_proxy.worker.forwarded import Client
from visa_jupyter_proxy.worker.grant import Grant
from visa_jupyter_proxy.worker.http1 import (
    HOP_BY_HOP,
    REQUEST_SPECIAL,
    RESPONSE_SPECIAL,
    Fields,
    Request,
    Response,
)
from visa_jupyter_proxy.worker.references import public_cookie, public_location
from visa_jupyter_proxy.worker.websocket import UPGRADE

_LOCATIONS: Final = ((b"location", b"Location"), (b"content-location", b"Content-Location"))
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


def request_fields(request: Request, match: Match, grant: Grant, client: Client, request_id: bytes) -> Fields:
    """Make the fields of the request to the instance."""
    fields = [*_passing(request, match.route)]
    host = request.host
    fields.append((b"Host", host if host is not None else _authority(grant.host)))
    fields.append((b"X-Forwarded-For", client.chain))
    fields.append((b"X-Forwarded-Proto", client.proto))
    if forwarded_host := client.host or host:
        fields.append((b"X-Forwarded-Host", forwarded_host))
    if match.public_root and not match.sent_root:
        fields.append((b"X-Forwarded-Prefix", match.public_root))
    fields.append((b"X-Real-IP", client.address.encode()))
    fields.append((b"X-Request-Id", request_id))
    for name, template in match.route.set_headers:
        fields.append((name.encode(), _filled(template, grant).encode()))
    return [*fields, *_framing_fields(request, match.route)]


def response_fields(
    response: Response, request: Request, match: Match, grant: Grant, client: Client
) -> Fields:
    """Make the fields of the response to the client, without those of the connection."""
    host = client.host or request.host
    cookies = response.special.get(b"set-cookie", ())
    return [
        *response.fields,
        *(
            (name, public_location(value, match, grant.host, host))
            for key, name in _LOCATIONS
            for value in response.special.get(key, ())
        ),
        *(
            (b"Set-Cookie", public_cookie(value, match, request.target))
            for value in cookies
            if not sets_token(value)
        ),
        *_worker_scope(request, match),
    ]


def _worker_scope(request: Request, match: Match) -> Fields:
    """Keep a service worker to the pages of its own instance.

    It outlives its page, and without this field it controls the folder of its script: for
    `/jupyter/12.js`, which is instance 12's, that would be every instance.
    """
    if b"service-worker" not in request.special:
        return []
    return [(b"Service-Worker-Allowed", match.prefix + b"/")]


def trailer_fields(trailers: Fields) -> Fields:
    """Drop what must not be in a trailer section, and whatever imitates it."""
    return [(name, value) for name, value in trailers if not _is_forbidden_trailer(name)]


def _is_forbidden_trailer(name: bytes) -> bool:
    key = _plain(name)
    return key in _NOT_IN_TRAILERS or key.startswith((b"x-forwarded-", b"access-control-", b"if-", b"sec-"))


def _authority(address: str) -> bytes:
    return f"[{address}]".encode() if ":" in address else address.encode()


def _plain(name: bytes) -> bytes:
    """Return a name as those see it who take `_` and `.` for `-` (case 30)."""
    return name.lower().replace(b"_", b"-").replace(b".", b"-")


def _passing(request: Request, route: Route) -> Fields:
    fields = request.fields
    if request.minor == 0:
        fields = [field for field in fields if field[0].lower() != b"expect"]  # RFC 9110 10.1.1
    if route.set_headers:
        replaced = {_plain(name.encode()) for name, _ in route.set_headers}
        fields = [field for field in fields if _plain(field[0]) not in replaced]
    authorization = request.special.get(b"authorization", [])
    cookies = request.special.get(b"cookie", [])
    if route.strip_credentials:
        authorization, cookies = without_bearer(authorization), without_token(cookies)
    return [
        *fields,
        *((b"Authorization", value) for value in authorization if not _replaces(route, "authorization")),
        *((b"Cookie", value) for value in cookies),
    ]


def _replaces(route: Route, name: str) -> bool:
    return any(name == field.lower() for field, _ in route.set_headers)


def _framing_fields(request: Request, route: Route) -> Fields:
    if request.websocket and route.ws:
        return [*UPGRADE]
    if request.chunked:
        return [(b"Transfer-Encoding", b"chunked")]
    if request.length is not None:
        return [(b"Content-Length", b"%d" % request.length)]
    return []


def _filled(template: str, grant: Grant) -> str:
    def value(name: re.Match[str]) -> str:
        found = grant.values.get(name[1], "")
        if not _VISIBLE.fullmatch(found):
            raise InstanceNotReady(f"the API gave no usable value for {name[0]}")
        return found

    return PLACEHOLDER.sub(value, template)


assert HOP_BY_HOP <= _NOT_IN_TRAILERS  # noqa: S101 -- a fact about constants, checked once at import
