"""What control is told as time goes by: the progress of kernel channels, and tokens, once each."""

import asyncio
from collections.abc import Callable
from typing import cast

from visa_jupyter_proxy.mailbox import TokenAccepted, TunnelProgressed
from visa_jupyter_proxy.worker.credentials import AccessToken
from visa_jupyter_proxy.worker.hangups import Hangups
from visa_jupyter_proxy.worker.sockets import Timed
from visa_jupyter_proxy.worker.telling import PROGRESS_S, AcceptedTokens, Progress
from visa_jupyter_proxy.worker.tunnel import Origin, Tunnel


class Silence:
    """The worker that a tunnel is in; nothing happens there."""

    def __init__(self) -> None:
        self.connections: set[Timed] = set()
        self.hangups = cast("Hangups", None)
        self.tunnel_idle_s = 0.0

    def now(self) -> float:
        """Stand still."""
        return 0.0

    def soon(self, callback: Callable[[], None]) -> None:
        """Do nothing."""

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Do nothing."""


class Hole(asyncio.Transport):
    """A transport that takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""


def tunnel(number: int | None) -> Tunnel:
    """Make a tunnel: a kernel channel of this number, or another one."""
    came_from = Origin(
        "192.0.2.1", "192.0.2.7", b"id", b"/jupyter/7/x", "Jupyter", 7, "anna", b"Browser/1", 0.0, number
    )
    return Tunnel(Hole(), Hole(), Silence(), came_from)


class TestProgress:
    """Of kernel channels."""

    def test_each_that_has_moved_is_told_of_once_a_minute(self) -> None:
        """Spread over its seconds; what has not moved, and what is no kernel channel, is not."""
        told: list[TunnelProgressed] = []
        progress = Progress(told.append)
        tunnels = [tunnel(number) for number in range(200)]
        for one in [*tunnels[:150], other := tunnel(None)]:
            one.down.data_received(b"\x81\x85abcd" + bytes(5))
        most = 0
        for second in range(2 * PROGRESS_S):
            before = len(told)
            progress.tick([object(), *tunnels, other], 100.0 + second, 5000.0 + second)
            most = max(most, len(told) - before)
        assert [*range(150)] == sorted(one.tunnel for one in told)
        assert 3 == most
        assert {(11, 0, 1, 0)} == {
            (one.bytes_up, one.bytes_down, one.messages_up, one.messages_down) for one in told
        }
        assert {4900.0} == {one.first_interacted_at for one in told}
        tunnels[7].up.data_received(b"\x81\x01x")
        for second in range(PROGRESS_S):
            progress.tick(tunnels, 300.0 + second, 5200.0 + second)
        assert [(7, 11, 3)] == [(one.tunnel, one.bytes_up, one.bytes_down) for one in told[150:]]


class TestAcceptedTokens:
    """Told once each."""

    def test_each_is_told_of_once(self) -> None:
        """However often the API accepts it."""
        told: list[TokenAccepted] = []
        tokens = AcceptedTokens(told.append)
        for text in ("a", "b", "a", "a"):
            tokens.accepted(AccessToken(text), "anna")
        assert [TokenAccepted(user="anna", token="a"), TokenAccepted(user="anna", token="b")] == told
        assert "'a'" not in repr(told[0])

    def test_memory_is_bounded(self) -> None:
        """One that was forgotten is told of again, which does no harm."""
        told: list[TokenAccepted] = []
        tokens = AcceptedTokens(told.append, most=2)
        for text in ("a", "b", "c", "b", "a"):
            tokens.accepted(AccessToken(text), "anna")
        assert ["a", "b", "c", "a"] == [one.token for one in told]
