"""What control tells a worker."""

from typing import Final

import msgspec

from visa_jupyter_proxy.routes import Route

STATUS_HERE: Final = "@status@"
REQUEST_ID_HERE: Final = "@request-id@"
SERVICE_HERE: Final = "@service@"
"""What stands in a `Page` where a worker fills these in."""


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


class Page(msgspec.Struct, frozen=True):
    """A page for people who cannot be served, but for its status and the id of the request."""

    body: bytes
    """HTML."""
    policy: str
    """Its `Content-Security-Policy`."""


class Start(msgspec.Struct, tag="start"):
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


class Ping(msgspec.Struct, tag="ping"):
    """Ask for a `Pong` of the same number, to see that the worker's loop turns."""

    number: int


class Drain(msgspec.Struct, tag="drain"):
    """Stop accepting, let running requests finish, close tunnels, then exit, within `seconds`."""

    seconds: float


class EndTunnels(msgspec.Struct, kw_only=True, tag="end_tunnels"):
    """End the tunnels that fit all that is given, with a close frame for the browser (RFC 6455 5.5.1).

    The frame stands between two of the instance's; where that is impossible for two seconds, the connection
    is closed without. Their ends are told as those of all tunnels.
    """

    user: str | None = None
    """As in `TunnelOpened`."""
    instance_id: int | None = None
    notebooks: frozenset[int] | None = None
    """Numbers of `TunnelOpened.tunnel`, of this worker."""
    not_host: str | None = None
    """Only those to another address than this one, which is written as `ipaddress` writes it."""
    code: int
    """One of `close_codes`."""
    reason: str
    """For the browser (cut to 123 bytes), the log, and `TunnelEnded.reason`."""
    forget_grants: bool = False
    """Also ask the API again for who fits: with `notebooks`, for users and instances of those tunnels."""


class LookAtTunnels(msgspec.Struct, tag="look_at_tunnels"):
    """Tell now what has passed through kernel channels, those that have moved since the last look."""


class Reload(msgspec.Struct, tag="reload"):
    """Use other settings and routes from the next request on; connections stay as they are."""

    settings: WorkerSettings
    """As in `Start`."""
    routes: tuple[Route, ...]
    pages: dict[str, dict[str, Page]]


class ShowState(msgspec.Struct, tag="show_state"):
    """Write the line of `state` to the log."""


type Downwards = Start | Ping | Drain | EndTunnels | LookAtTunnels | Reload | ShowState
