"""What becomes of one request, and why: the outcome of a rehearsal, compared with what was asked."""

import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.diagnosis.advice import ADVICE
from visa_jupyter_proxy.diagnosis.order import move
from visa_jupyter_proxy.diagnosis.rehearsal import ASSUMED_HOST, Outcome, rehearse
from visa_jupyter_proxy.errors import NoRoute, ProxyError
from visa_jupyter_proxy.mailbox import WorkerSettings
from visa_jupyter_proxy.routes import PLACEHOLDER, Route, Router
from visa_jupyter_proxy.settings.parsing import in_url
from visa_jupyter_proxy.worker.accounting.kernels import notebook_key
from visa_jupyter_proxy.worker.http.sections import FORWARDED, HOP_BY_HOP
from visa_jupyter_proxy.worker.upstream import Address

TOKEN: Final = "TOKEN"  # noqa: S105 -- a word that stands for one
"""Stands for the access token in all that is shown."""

_BROWSER: Final = "203.0.113.7"
"""The browser behind the proxy in front (RFC 5737: no machine has it)."""

_ADDRESS: Final = "ADDRESS"
"""Stands for the instance's address in what is shown, where VISA is not asked."""

_WORDS: Final = {"no route matches": "its pattern does not match"}
"""Of one service alone."""

_ERRORS: Final = "surrogateescape"
"""Bytes on the command line that are no UTF-8 are sent as they are, and shown escaped."""

_WRITE: Final = (
    "write the path of an address of this site, /jupyter/1234/lab, or all of it, "
    "https://visa.example.org/jupyter/1234/lab"
)

_KEY: Final = "MDEyMzQ1Njc4OWFiY2RlZg=="


class Question(NamedTuple):
    """What is to be explained."""

    url: str
    websocket: bool = False
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    """Besides those that a browser sends, or instead of them."""
    token: str | None = None
    """What VISA is asked with; None assumes that it agrees."""
    peer: str | None = None
    """Address from which the connection comes; None is the proxy in front."""


class Field(msgspec.Struct, frozen=True):
    """A header field, and what becomes of it."""

    name: str
    value: str
    change: str
    """`kept`, `changed`, `added` or `dropped`."""
    why: str | None = None


class Service(msgspec.Struct, frozen=True):
    """A service of the routes, and why the request goes there or not."""

    name: str
    match: str
    chosen: bool
    why: str


class Refusal(msgspec.Struct, frozen=True):
    """Why the request is not forwarded."""

    status: int
    error: str
    reason: str
    advice: str


class Answered(msgspec.Struct, frozen=True):
    """A field of an answer, as the instance may write it, and as the browser gets it."""

    name: str
    instance: str
    browser: str | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to know."""

    request: str
    host: str
    peer: str
    websocket: bool
    asked_visa: bool
    services: list[Service]
    service: str | None = None
    instance: int | None = None
    user: str | None = None
    kernel: str | None = None
    session: str | None = None
    connects_to: str | None = None
    """`http://10.0.0.7:8888`; without VISA's answer, the address is a placeholder."""
    sent: str | None = None
    """The request line for the instance."""
    fields: list[Field] = []
    answer: list[Answered] = []
    refused: Refusal | None = None


async def explain(question: Question, settings: WorkerSettings, routes: Sequence[Route]) -> Explanation:
    """Say what becomes of a request. Raises `ValueError` for a URL that is none."""
    peer = question.peer or _front(settings)
    target, host, came = _request(question, settings)
    asked = question.token is not None
    head = _head(question.method, target, came)
    outcome = await rehearse(head, peer, settings, routes, ask=asked, connect=asked, sample=_sample)
    match, grant, address = outcome.match, outcome.grant, outcome.address
    key = notebook_key(match) if match is not None and question.websocket and match.route.ws else None
    return Explanation(
        request=_shown(f"{question.method} {target}", question),
        host=host,
        peer=peer,
        websocket=question.websocket,
        asked_visa=asked and grant is not None,
        services=_services(target, question.websocket, routes, match.route if match is not None else None),
        service=match.route.name if match is not None else None,
        instance=match.instance_id if match is not None else None,
        user=grant.user if asked and grant is not None else None,
        kernel=key.kernel_id if key is not None else None,
        session=key.session_id if key is not None else None,
        connects_to=_place(match.route, address) if match and address else None,
        sent=_shown(_first_line(outcome.sent), question) if outcome.sent else None,
        fields=_fields(came, outcome, question),
        answer=_answer(outcome) if outcome.error is None and outcome.answered else [],
        refused=_refusal(outcome.error, target, question, routes) if outcome.error is not None else None,
    )


# --- the request ----------------------------------------------------------------------------


def _front(settings: WorkerSettings) -> str:
    """Return the address of a proxy in front, as far as the settings name one."""
    for network in map(ipaddress.ip_network, settings.trusted_proxies):
        return str(network[0] if network.num_addresses == 1 else network[1])
    return "127.0.0.1"


def _request(question: Question, settings: WorkerSettings) -> tuple[str, str, list[tuple[str, str]]]:
    """Make target, host and fields of what a browser would send for this URL."""
    scheme, host, path = _address(question.url)
    host = host or (settings.server_names[0] if settings.server_names else "visa.example.org")
    is_tls = scheme not in ("http", "ws")
    browser = _browser(question, host, is_tls=is_tls)
    replaced = {name.lower() for name, _ in question.fields}
    fields = [field for field in browser if field[0].lower() not in replaced]
    return path, host, [*fields, *question.fields]


def _address(written: str) -> tuple[str, str, str]:
    """Take an address apart into scheme, host and path, as a browser does; without the first two, a path."""
    url = quote(written.partition("#")[0], safe="".join(map(chr, range(0x21, 0x7F))), errors=_ERRORS)
    if url.startswith("/"):  # also with two slashes: that is what a log shows
        return "", "", url
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_WRITE) from None
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(_WRITE)
    path = url.partition("//")[2].removeprefix(parts.netloc)
    # A browser sends no name and password that stand in an address, and a path in any case.
    return parts.scheme, parts.netloc.rpartition("@")[2], path if path.startswith("/") else f"/{path}"


def _browser(question: Question, host: str, *, is_tls: bool) -> list[tuple[str, str]]:
    fields = [("Host", host), ("Accept-Encoding", "gzip, br"), ("User-Agent", "visa-jupyter-proxy explain")]
    fields += [("Cookie", f"_xsrf=1; access_token={question.token or TOKEN}")]
    if question.websocket:
        fields += [("Origin", f"{'https' if is_tls else 'http'}://{host}"), ("Connection", "Upgrade")]
        fields += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", _KEY)]
    else:
        fields += [("Accept", "*/*"), ("Connection", "keep-alive")]
    if question.peer is None:  # so it is the proxy in front
        fields += [("X-Forwarded-For", _BROWSER), ("X-Real-IP", _BROWSER)]
        fields += [("X-Forwarded-Proto", "https" if is_tls else "http")]
    return fields


def _head(method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("utf-8", _ERRORS)


def _sample(address: Address) -> bytes:
    """Answer as an instance might that knows nothing of a proxy."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in _sample_fields(address))
    return f"HTTP/1.1 302 Found\r\n{lines}Content-Length: 0\r\n\r\n".encode("ascii")


def _sample_fields(address: Address) -> list[tuple[str, str]]:
    host = in_url(address.host)
    scheme = "http" if address.tls is None else "https"
    return [
        ("Location", f"{scheme}://{host}:{address.port}/there"),
        ("Set-Cookie", "name=value; Path=/"),
        ("Clear-Site-Data", '"cookies"'),
    ]


# --- why ------------------------------------------------------------------------------------


def _services(target: str, websocket: bool, routes: Sequence[Route], chosen: Route | None) -> list[Service]:
    seen = False
    services = []
    for route in routes:
        is_chosen = route is chosen and not seen
        seen = seen or is_chosen
        services.append(
            Service(route.name, route.match, is_chosen, _why(target, websocket, route, is_chosen, seen))
        )
    return services


def _why(target: str, websocket: bool, route: Route, is_chosen: bool, behind: bool) -> str:
    try:
        found = Router([route]).match(target.encode("utf-8", _ERRORS), websocket=websocket)
    except ProxyError as error:
        return _WORDS.get(str(error), f"refuses it: {error}")
    if is_chosen and websocket and not route.ws:
        return f'takes it for instance {found.instance_id}, as plain HTTP: set `"ws": true` for a WebSocket'
    if is_chosen:
        return f"takes it, for instance {found.instance_id}"
    if websocket and not route.ws:
        return "would match, but has no `ws`"
    return "would match, but an earlier one does" if behind else "would match"


def _refusal(error: ProxyError, target: str, question: Question, routes: Sequence[Route]) -> Refusal:
    advice = ADVICE[type(error)]
    if isinstance(error, NoRoute):
        advice = move(target.encode("utf-8", _ERRORS), routes, websocket=question.websocket) or advice
    return Refusal(error.status, error.error, str(error), advice)


# --- what is sent ---------------------------------------------------------------------------


def _place(route: Route, address: Address) -> str:
    return _named(f"{route.remote_scheme}://{in_url(address.host)}:{address.port}")


def _named(text: str) -> str:
    """Show no address that stands for one that is not known."""
    return text.replace(ASSUMED_HOST, _ADDRESS)


def _first_line(head: bytes) -> str:
    return head.partition(b"\r\n")[0].decode("utf-8", _ERRORS).removesuffix(" HTTP/1.1")


def _parsed(head: bytes) -> list[tuple[str, str]]:
    lines = head.partition(b"\r\n\r\n")[0].decode("utf-8", _ERRORS).split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def _fields(came: Sequence[tuple[str, str]], outcome: Outcome, question: Question) -> list[Field]:
    """Compare what came with what is sent, by name; values that may be secret are masked."""
    if not outcome.sent or outcome.match is None:
        return []
    route = outcome.match.route
    sent = [(name, _masked(name, value, route)) for name, value in _parsed(outcome.sent)]
    before = {name.lower(): value for name, value in came}
    after = {name.lower() for name, _ in sent}
    fields = []
    for name, value in sent:
        old = before.get(name.lower())
        change = "added" if old is None else "kept" if old == value else "changed"
        fields.append((name, value, change))
    dropped = [(name, value) for name, value in came if name.lower() not in after]
    fields += [(name, logs.without_tokens(value), "dropped") for name, value in dropped]
    return [Field(n, _shown(v, question), c, _reason(n, c, route)) for n, v, c in fields]


def _reason(name: str, change: str, route: Route) -> str | None:
    key = name.lower()
    if change == "kept":
        return None
    if key in {field.lower() for field, _ in route.set_headers}:
        return "`setHeaders` of the service"
    if key in ("cookie", "authorization"):
        return "the VISA token stays here"
    if key.encode() in HOP_BY_HOP:
        return "about one connection"
    if key.encode().startswith(FORWARDED) or key in ("x-real-ip", "x-request-id", "forwarded", "x-scheme"):
        return "the proxy's own word"
    return None


def _masked(name: str, value: str, route: Route) -> str:
    for field, template in route.set_headers:
        if field.lower() == name.lower() and PLACEHOLDER.search(template):
            return template
    return value


def _shown(text: str, question: Question) -> str:
    return text.replace(question.token, TOKEN) if question.token else text


def _answer(outcome: Outcome) -> list[Answered]:
    """Compare the sample with what the browser gets of it."""
    if outcome.address is None:
        return []
    got = dict(_parsed(outcome.answered))
    return [Answered(name, _named(value), got.get(name)) for name, value in _sample_fields(outcome.address)]
