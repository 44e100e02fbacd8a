"""What is kept of requests and tunnels, to be logged and told to control. No query, no token, ever."""

from collections.abc import Callable
from typing import Final, NamedTuple

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.errors import ClientGone, Internal, ProxyError
from visa_jupyter_proxy.mailbox import Traffic, TunnelEnded
from visa_jupyter_proxy.routes import Match
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.exchange import Exchange, Phase
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.tunnel import RESTARTING, Origin, Tunnel

_LONGEST_PATH: Final = 256
"""Of a path in the log; a longer one is cut there."""

_LONGEST_USER_AGENT: Final = 256
"""Of what a client says that it is; browsers say about 120."""


class AccessLog(NamedTuple):
    """What the log has about requests."""

    which: str
    """`off`, `errors` (what was refused or could not be completed, the 5xx of instances, and the end of every
    tunnel) or `all`."""
    addresses: bool = True
    """Whether the addresses of clients are in it."""

    @property
    def is_on(self) -> bool:
        """Whether what was refused, or could not be completed, has a line, and so has every tunnel's end."""
        return self.which != "off"

    def client(self, address: str) -> str | None:
        """Return what the line says of where a client is."""
        return address if self.addresses else None


def log_exchange(access_log: AccessLog, exchange: Exchange, now: float) -> None:
    """Log an exchange that has ended; clients that leave in the middle are everyday life, and no failure."""
    error, status = exchange.error, exchange.status
    failed = (error is not None and not isinstance(error, ClientGone)) or (status or 0) >= 500
    if access_log.which != "all" and not (failed and access_log.is_on):
        return
    request, match, grant = exchange.request, exchange.match, exchange.grant
    began = exchange.stamps[Phase.ROUTE] or now
    _teller(error, failed=failed)(
        "tunnel" if exchange.stamps[Phase.TUNNEL] is not None else "request",
        client=access_log.client(exchange.client.address),
        request_id=exchange.id.decode("ascii"),
        method=request.method.decode("ascii"),
        path=_text(_cut(request)),
        route=match.route.name if match is not None else None,
        instance=match.instance_id if match is not None else None,
        user=grant.user if grant is not None else None,
        user_agent=_text(_user_agent(request)),
        status=status if status is not None else error and error.status,
        reason=error.error if error is not None else None,
        detail=str(error) if error is not None else None,
        duration=round(now - began, 4),
        bytes_up=exchange.bytes_up,
        bytes_down=exchange.bytes_down,
    )


def origin(exchange: Exchange, match: Match, grant: Grant, peer: str, *, notebook: int | None) -> Origin:
    """Keep of an exchange that has become a tunnel what its line will need."""
    return Origin(
        peer=peer,
        client=exchange.client.address,
        request_id=exchange.id,
        path=_cut(exchange.request),
        route=match.route.name,
        instance_id=match.instance_id,
        user=grant.user,
        user_agent=_user_agent(exchange.request),
        began=exchange.stamps[Phase.ROUTE] or 0.0,
        notebook=notebook,
    )


def log_tunnel(access_log: AccessLog, tunnel: Tunnel, now: float) -> None:
    """Log a tunnel that has ended; an instance that breaks one is a failure, and so is access that ends."""
    if not access_log.is_on:
        return
    error, came_from = tunnel.error, tunnel.origin
    broken = error is not None and not isinstance(error, ClientGone)
    refused = tunnel.ended_for not in (None, RESTARTING)
    (logs.get().notice if refused else _teller(error, failed=broken))(
        "tunnel",
        client=access_log.client(came_from.client),
        request_id=came_from.request_id.decode("ascii"),
        method="GET",
        path=_text(came_from.path),
        route=came_from.route,
        instance=came_from.instance_id,
        user=came_from.user,
        user_agent=_text(came_from.user_agent),
        status=101,
        reason=error.error if error is not None else tunnel.ended_for,
        detail=str(error) if error is not None else None,
        duration=round(now - came_from.began, 4),
        bytes_up=tunnel.down.received,
        bytes_down=tunnel.up.received,
    )


def tunnel_ended(tunnel: Tunnel, number: int, now: float, at: float) -> TunnelEnded:
    """Make what control is told of the end of a kernel channel; `now` and `at` are the same moment."""
    return TunnelEnded(
        tunnel=number,
        reason=tunnel.ended_for or ("closed" if tunnel.error is None else tunnel.error.error),
        at=at,
        traffic=traffic(tunnel, now, at),
    )


def traffic(tunnel: Tunnel, now: float, at: float) -> Traffic:
    """Say what has passed through a kernel channel until now."""
    return Traffic(
        bytes_up=tunnel.down.received,
        bytes_down=tunnel.up.received,
        messages_up=tunnel.messages_up or 0,
        messages_down=tunnel.messages_down,
        first_interaction_at=_on_the_wall(tunnel.first_interacted_at, now, at),
        last_interaction_at=_on_the_wall(tunnel.interacted_at, now, at),
    )


def _on_the_wall(then: float | None, now: float, at: float) -> float | None:
    return None if then is None else at - (now - then)


def log_refusal(access_log: AccessLog, peer: str, request_id: bytes, error: ProxyError) -> None:
    """Log what was no request at all."""
    if access_log.is_on:
        logs.get().notice(
            "request",
            client=access_log.client(peer),
            request_id=request_id.decode("ascii"),
            status=error.status,
            reason=error.error,
            detail=str(error),
        )


def _cut(request: Request) -> bytes:
    return request.target.partition(b"?")[0][:_LONGEST_PATH]


def _user_agent(request: Request) -> bytes | None:
    said = request.one(b"user-agent")
    return None if said is None else said[:_LONGEST_USER_AGENT]


def _text(said: bytes | None) -> str | None:
    # A token has no business there, but somebody may put one into a path (case 128). Cut first: looking for
    # one takes time by the square of the length.
    return None if said is None else logs.without_tokens(said.decode("ascii", "backslashreplace"))


def _teller(error: ProxyError | None, *, failed: bool) -> Callable[..., None]:
    log = logs.get()
    if isinstance(error, Internal):
        return log.error
    if not failed:
        return log.info
    return log.notice if error is not None and error.source == "downstream" else log.warning
