"""The messages between control and a worker, and the pipe that carries them.

One duplex socket pair for each worker. A message is a four-byte length (big-endian) and a
MessagePack map whose `type` names the class. Nobody waits for an answer: every message stands alone.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast, override

import msgspec

from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.state import WorkerState

_LENGTH: Final = 4
_LARGEST: Final = 16 * 2**20
"""Far beyond any message (the largest is `Start`): a length beyond it means that the stream is broken."""


OPAQUE: Final = "token:"
"""How the name of a user begins whose token says nothing of him: the rest is a digest of the token."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to know of the settings, as plain values. Times are seconds."""

    api_url: str
    """Base URL of the VISA API, without a slash at its end: `http://localhost:8086/api`."""
    api_ca_file: str | None
    api_timeout_s: float
    jwks_url: str | None = None
    jwks_file: str | None = None
    """Without either no token is verified here."""
    jwt_issuer: str | None = None
    jwt_audience: tuple[str, ...] = ()
    cache_refresh_time_s: float
    cache_stale_if_error_s: float
    instance_networks: tuple[str, ...] | None
    """Networks in CIDR form an instance may be in; None is the default of `authorization`."""
    trusted_proxies: tuple[str, ...]
    server_names: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    access_log: str
    """`off`, `errors` or `all`."""
    log_client_address: bool = True
    tracing: bool = False
    connect_timeout_s: float
    response_timeout_s: float
    idle_timeout_s: float
    header_timeout_s: float
    request_line_bytes: int = 8192
    head_bytes: int = 32 * 1024
    head_fields: int = 100
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    tunnel_idle_timeout_s: float = 0.0
    """0 is none."""
    tcp_keepalive_s: int = 60
    """0 is none."""
    max_connections: int = 0
    """0 is what the descriptors allow."""
    max_connections_per_address: int = 0
    """0 is any number."""
    drain_s: float
    metrics_per_instance: bool = False
    log_level: str
    log_timezone: str | None
    log_syslog_host: str | None
    log_syslog_port: int | None
    log_syslog_app_name: str | None


STATUS_HERE: Final = "@status@"
REQUEST_ID_HERE: Final = "@request-id@"
"""What stands in a `Page` where a worker fills these in."""


class Page(msgspec.Struct, frozen=True):
    """A page for people who cannot be served, but for its status and the id of the request."""

    body: bytes
    """HTML."""
    policy: str
    """Its `Content-Security-Policy`."""


class NotebookKey(msgspec.Struct, frozen=True):
    """What makes a notebook session one (contract section 4)."""

    instance_id: int
    kernel_id: str
    session_id: str


class _Message(msgspec.Struct, kw_only=True, tag_field="type"):
    pass


# --- downwards: control to worker --------------------------------------------------------


class Start(_Message, tag="start"):
    """The first message: all that a worker has to know."""

    settings: WorkerSettings
    """Limits that are counts are this worker's part of them."""
    routes: tuple[Route, ...]
    pages: dict[str, dict[str, Page]]
    """Language -> name -> page, as `error_pages.load` makes them; the first language is the default."""
    place: int = 0
    """Its number among the workers, from 0 on; the worker that replaces it has the same."""
    places: int = 1
    """How many workers there are."""


class Ping(_Message, tag="ping"):
    """Ask for a `Pong` of the same number, to see that the worker's loop turns."""

    number: int


class Drain(_Message, tag="drain"):
    """Stop accepting, let running requests finish, close tunnels, then exit, within `seconds`."""

    seconds: float


class EndTunnels(_Message, kw_only=True, tag="end_tunnels"):
    """End the tunnels that fit all that is given, with a close frame for the browser (RFC 6455 5.5.1).

    The frame stands between two of the instance's; where that is impossible for two seconds, the connection
    is closed without. Their ends are told as those of all tunnels.
    """

    user: str | None = None
    """As in `TunnelOpened`."""
    instance_id: int | None = None
    notebook: int | None = None
    """The number of `TunnelOpened.tunnel`, of this worker."""
    not_host: str | None = None
    """Only those to another address than this one, which is written as `ipaddress` writes it."""
    code: int
    """1008, 1012 and the like (RFC 6455 7.4.1)."""
    reason: str
    """For the browser (cut to 123 bytes), the log, and `TunnelEnded.reason`."""
    forget_grants: bool = False
    """Also ask the API again for who fits: with `notebook`, for the user and the instance of that tunnel."""


class LookAtTunnels(_Message, tag="look_at_tunnels"):
    """Tell now what has passed through kernel channels, those that have moved since the last look."""


class Reload(_Message, tag="reload"):
    """Use other settings and routes from the next request on; connections stay as they are."""

    settings: WorkerSettings
    """As in `Start`."""
    routes: tuple[Route, ...]
    pages: dict[str, dict[str, Page]]


class ShowState(_Message, tag="show_state"):
    """Write the line of `state` to the log."""


# --- upwards: worker to control ----------------------------------------------------------


class Ready(_Message, tag="ready"):
    """The worker accepts connections."""


class Pong(_Message, tag="pong"):
    """The worker's loop turns."""

    number: int


class TunnelOpened(_Message, tag="tunnel_opened"):
    """An instance has answered 101 to a kernel channel: a connection of a notebook session begins."""

    tunnel: int
    """Unique among the tunnels of this worker process."""
    notebook: NotebookKey
    user: str
    """`sub` of the accepted token; or `OPAQUE` and a digest of a token that has none."""
    token: str
    """For reporting the session; kept in memory only."""
    at: float
    """Unix time."""

    @override
    def __repr__(self) -> str:
        return f"TunnelOpened(tunnel={self.tunnel}, notebook={self.notebook}, user={self.user!r})"


class TokenAccepted(_Message, tag="token_accepted"):
    """The VISA API has accepted a token, and said that its user owns an instance."""

    user: str
    """As in `TunnelOpened`."""
    token: str
    """For what cannot be asked or told with an older one of this user any more; in memory only."""
    instance_id: int
    state: str
    """Of the instance, as the API says it."""
    host: str | None
    """Its address, likewise, unchecked."""

    @override
    def __repr__(self) -> str:
        return f"TokenAccepted(user={self.user!r}, instance_id={self.instance_id})"


class AccessHeld(_Message, tag="access_held"):
    """A user has live tunnels to an instance on this worker: of whatever kind, and however many."""

    user: str
    """As in `TunnelOpened`."""
    instance_id: int
    host: str
    """The checked address of the newest. Told of once, and again when a tunnel leads to another one."""
    token: str
    """With which it was opened; in memory only."""

    @override
    def __repr__(self) -> str:
        return f"AccessHeld(user={self.user!r}, instance_id={self.instance_id})"


class AccessReleased(_Message, tag="access_released"):
    """The last of these tunnels is over."""

    user: str
    instance_id: int


class _Traffic(_Message):
    tunnel: int
    bytes_up: int
    """From the browser to the instance."""
    bytes_down: int
    messages_up: int = 0
    """Data messages from the browser, as far as the stream was WebSocket."""
    messages_down: int = 0
    first_interacted_at: float | None = None
    """When the first data message came from the browser, in Unix time; None when there was none."""
    interacted_at: float | None = None
    """When the last one came."""


class TunnelProgressed(_Traffic, tag="tunnel_progressed"):
    """What has passed through a connection of a notebook session that goes on."""

    is_for_a_look: bool = False
    """Somebody looks at the moment (`LookAtTunnels`): not for the journal."""


class TunnelEnded(_Traffic, kw_only=True, tag="tunnel_ended"):
    """A connection of a notebook session is over."""

    reason: str
    at: float
    """Unix time."""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """How many more there are of something, since the last message."""

    metric: str
    """A name of `metrics`."""
    labels: tuple[str, ...]
    count: int


class Observed(msgspec.Struct, frozen=True, array_like=True):
    """How many more have taken how long, since the last message."""

    metric: str
    labels: tuple[str, ...]
    buckets: tuple[int, ...]
    """One for each of `metrics.BOUNDS`, and one beyond; each observation is in one of them."""
    seconds: float
    """All together."""


class Counters(_Message, tag="counters"):
    """What a worker has counted since the last such message, and what is under way: once a second."""

    counts: tuple[Count, ...]
    observed: tuple[Observed, ...]
    state: WorkerState
    instance_tunnels: tuple[tuple[int, int], ...] = ()
    """Instance, and how many WebSockets it has; only with `metrics_per_instance`."""


type Downwards = Start | Ping | Drain | EndTunnels | LookAtTunnels | Reload | ShowState
type Upwards = (
    Ready
    | Pong
    | TokenAccepted
    | AccessHeld
    | AccessReleased
    | TunnelOpened
    | TunnelProgressed
    | TunnelEnded
    | Counters
)
type Message = Downwards | Upwards

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
    Start
    | Ping
    | Drain
    | EndTunnels
    | LookAtTunnels
    | Reload
    | ShowState
    | Ready
    | Pong
    | TokenAccepted
    | AccessHeld
    | AccessReleased
    | TunnelOpened
    | TunnelProgressed
    | TunnelEnded
    | Counters
)


class Mailbox(asyncio.Protocol):
    """One end of the pipe.

    `received` is called with the mailbox and each message, in order, from before `open` returns; `lost`
    once, when the other process is gone.
    Neither may raise.
    """

    def __init__(self, received: Callable[["Mailbox", Message], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._closed = asyncio.Event()

    @classmethod
    async def open(
        cls, sock: socket.socket, received: Callable[["Mailbox", Message], None], lost: Callable[[], None]
    ) -> "Mailbox":
        """Take over `sock` (one half of a socket pair), which belongs to the mailbox from here on."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, mailbox = await loop.create_connection(lambda: cls(received, lost), sock=sock)
        return mailbox

    def send(self, message: Message) -> None:
        """Send without waiting; dropped when the other process is gone (`lost` has said so)."""
        if self._transport is not None:
            body = _encoder.encode(message)
            self._transport.write(len(body).to_bytes(_LENGTH, "big") + body)

    async def close(self) -> None:
        """Close after what was sent has been written, or when the other process is gone."""
        if self._transport is not None:
            self._transport.close()
        await self._closed.wait()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop derives its own from nothing

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH:
            length = int.from_bytes(self._buffer[:_LENGTH], "big")
            if length > _LARGEST:
                raise ValueError(f"a message of {length} bytes: the mailbox is out of step")
            if len(self._buffer) < _LENGTH + length:
                return
            body = bytes(self._buffer[_LENGTH : _LENGTH + length])
            del self._buffer[: _LENGTH + length]
            self._received(self, _decoder.decode(body))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed.set()
        self._lost()
