"""What parts need of those above them, and no more.

An exchange needs two connections, so it can be tested with bytes alone; the connection to an instance
needs the pool that has opened it.
"""

from collections.abc import Callable
from typing import Final, Protocol

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.crowds import Crowd
from visa_jupyter_proxy.worker.http.bodies import Piece
from visa_jupyter_proxy.worker.pages import Answer
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Transport
from visa_jupyter_proxy.worker.sockets.splice import Sink, Splices


class Hold:
    """Why a client is not being read: flags. Looking at an `IntFlag` costs 0.7 us, four times a request."""

    NOT_CONNECTED: Final = 1
    UPSTREAM_FULL: Final = 2
    PIPELINED: Final = 4
    OTHERS_TURN: Final = 8
    SPLICED: Final = 16


class DownstreamPort[Exchange](Protocol):
    """What an exchange needs of the client's connection."""

    def write(self, *pieces: Piece) -> None:
        """Send, all in one system call; back-pressure comes back as `pause_reading` of the upstream port."""

    def hold(self, reason: int) -> None:
        """Stop reading from the client until each reason (of `Hold`) is released."""

    def release(self, reason: int) -> None:
        """Take one reason back."""

    @property
    def is_full(self) -> bool:
        """Whether the client takes no more at the moment."""

    @property
    def sink(self) -> Sink:
        """The client's connection, for a body that goes there by itself."""

    def touch(self) -> None:
        """Know that bytes have gone to the client, be it through `write` or by themselves."""

    def date(self) -> bytes:
        """Return the time as HTTP writes it."""

    def refusal(self, error: ProxyError, exchange: Exchange) -> Answer:
        """Compose the answer to a request that failed with `error`."""

    def open_tunnel(self, exchange: Exchange, upstream: Transport, early: bytes) -> None:
        """Send the 101 and tie both connections together; `early` is what the instance sent behind it."""

    def try_again(self, exchange: Exchange) -> None:
        """Connect and forward once more, on a fresh connection."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """Log, count, and go on with the connection as `exchange.closing` says."""


class UpstreamPort(Protocol):
    """What an exchange needs of the instance's connection."""

    @property
    def reused(self) -> bool:
        """Whether another exchange has used this connection before."""

    def write(self, data: Piece) -> None:
        """Send; back-pressure comes back as `Hold.UPSTREAM_FULL` of the downstream port."""

    @property
    def sink(self) -> Sink:
        """The instance's connection, for a body that goes there by itself."""

    def pause_reading(self) -> None:
        """Stop reading from the instance: the client is full."""

    def resume_reading(self) -> None:
        """Read on."""

    def request_sent(self) -> None:
        """Begin to wait for the response head."""

    def detach(self, *, reusable: bool) -> None:
        """Leave the exchange, which is over: keep the connection for another, or abort it."""


class PoolPort[Upstream](Protocol):
    """What an instance's connection needs of the pool it comes from."""

    hangups: Hangups
    """Reports resets while reading is paused."""
    splices: Splices
    """Moves large bodies."""
    crowd: Crowd
    """Has answers wait that come all at once."""
    response_timeout_s: float
    """From the end of a request to the head of its response."""

    def now(self) -> float:
        """Return the loop's clock."""

    def soon(self, callback: Callable[[], None]) -> object:
        """Call back in the next turn of the loop, when others have had theirs."""

    def keep(self, upstream: Upstream) -> None:
        """Take back a connection on which a response has just ended."""

    def made(self, upstream: Upstream) -> None:
        """Know a connection that has just been opened."""

    def drop(self, upstream: Upstream) -> None:
        """Forget a connection that is over, or belongs to a tunnel from now on."""
