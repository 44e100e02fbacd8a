"""What a worker tells control. Tokens are in some of it, and in no `repr`: a message may stand in a log."""

from typing import Final, override

import msgspec

from visa_jupyter_proxy.state import WorkerState

OPAQUE: Final = "token:"
"""How the name of a user begins whose token says nothing of him: the rest is a digest of the token."""


class NotebookKey(msgspec.Struct, frozen=True):
    """What makes a notebook session one (contract section 4)."""

    instance_id: int
    kernel_id: str
    session_id: str


class Ready(msgspec.Struct, tag="ready"):
    """The worker accepts connections."""


class Pong(msgspec.Struct, tag="pong"):
    """The worker's loop turns."""

    number: int


class TunnelOpened(msgspec.Struct, tag="tunnel_opened"):
    """An instance has answered 101 to a kernel channel: a connection of a notebook session begins."""

    tunnel: int
    """Unique among the tunnels of this worker process."""
    notebook: NotebookKey
    user: str
    """`sub` of the accepted token, `storable`; or `OPAQUE` and a digest of a token that has none."""
    token: str
    """For reporting the session; kept in memory only."""
    at: float
    """Unix time."""

    @override
    def __repr__(self) -> str:
        return f"TunnelOpened(tunnel={self.tunnel}, notebook={self.notebook}, user={self.user!r})"


class TokenAccepted(msgspec.Struct, tag="token_accepted"):
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


class AccessHeld(msgspec.Struct, tag="access_held"):
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


class AccessReleased(msgspec.Struct, tag="access_released"):
    """The last of these tunnels is over."""

    user: str
    instance_id: int


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """What has passed through a connection of a notebook session since it began."""

    bytes_up: int
    """From the browser to the instance."""
    bytes_down: int
    messages_up: int = 0
    """Data messages from the browser, as far as the stream was WebSocket."""
    messages_down: int = 0
    first_interaction_at: float | None = None
    """When the first data message came from the browser, in Unix time; None when there was none."""
    last_interaction_at: float | None = None


class TunnelProgressed(msgspec.Struct, tag="tunnel_progressed"):
    """How far a connection of a notebook session has come, which goes on."""

    tunnel: int
    traffic: Traffic
    is_for_a_look: bool = False
    """Somebody looks at the moment (`LookAtTunnels`): not for the journal."""


class TunnelEnded(msgspec.Struct, tag="tunnel_ended"):
    """A connection of a notebook session is over."""

    tunnel: int
    reason: str
    at: float
    """Unix time."""
    traffic: Traffic


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


class Counters(msgspec.Struct, tag="counters"):
    """What a worker has counted since the last such message, and what is under way: once a second."""

    counts: tuple[Count, ...]
    observed: tuple[Observed, ...]
    state: WorkerState
    instance_tunnels: tuple[tuple[int, int], ...] = ()
    """Instance, and how many WebSockets it has; only with `metrics_per_instance`."""


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
