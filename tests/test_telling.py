"""What control is told as time goes by: progress of kernel channels, who has tunnels, what was accepted."""

import asyncio
from collections.abc import Callable
from typing import cast

from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, TokenAccepted, TunnelProgressed
from visa_jupyter_proxy.visa_api import Instance
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.accounting.telling import PROGRESS_S, Holdings, Progress, token_accepted
from visa_jupyter_proxy.worker.crowds import Crowd
from visa_jupyter_proxy.worker.http.credentials import AccessToken
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.tunnel import Origin, Tunnel


class Silence:
    """The worker that a tunnel is in; nothing happens there."""

    def __init__(self) -> None:
        self.connections: set[Timed] = set()
        self.hangups = cast("Hangups", None)
        self.crowd = cast("Crowd", None)
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


def grant(user: str, instance_id: int, host: str = "10.0.0.7") -> Grant:
    """Make a grant of an instance at that address."""
    instance = Instance(id=instance_id, host=host, state="ACTIVE", owner="1", values={})
    return Grant((b"digest", instance_id), instance, host, user, expires=60.0, usable_until=180.0)


def held(user: str, instance_id: int, *, token: str) -> AccessHeld:
    """Say that a user has tunnels to an instance."""
    return AccessHeld(user=user, instance_id=instance_id, host="10.0.0.7", token=token)


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
            (one.bytes_up, one.bytes_down, one.messages_up, one.messages_down)
            for one in (message.traffic for message in told)
        }
        assert {4900.0} == {one.traffic.first_interaction_at for one in told}
        tunnels[7].up.data_received(b"\x81\x01x")
        for second in range(PROGRESS_S):
            progress.tick(tunnels, 300.0 + second, 5200.0 + second)
        assert [(7, 11, 3)] == [
            (one.tunnel, one.traffic.bytes_up, one.traffic.bytes_down) for one in told[150:]
        ]

    def test_a_look_shows_what_has_moved_and_leaves_the_minute_alone(self) -> None:
        """Whoever looks gets what is new to them, marked; the journal gets all the same what is new to it."""
        told: list[TunnelProgressed] = []
        progress = Progress(told.append)
        tunnels = [tunnel(number) for number in range(3)]
        progress.look([object(), *tunnels], 100.0, 5000.0)
        assert [(0, True), (1, True), (2, True)] == [(one.tunnel, one.is_for_a_look) for one in told]
        progress.look(tunnels, 101.0, 5001.0)
        tunnels[1].up.data_received(b"\x81\x01x")
        progress.look(tunnels, 102.0, 5002.0)
        assert [1] == [one.tunnel for one in told[3:]]
        for second in range(PROGRESS_S):
            progress.tick(tunnels, 200.0 + second, 5100.0 + second)
        assert [(1, False)] == [(one.tunnel, one.is_for_a_look) for one in told[4:]]


class TestHoldings:
    """Who has tunnels to what."""

    def test_the_first_and_the_last_are_told(self) -> None:
        """Of all tunnels of a user to an instance, with the token of the first; once a second."""
        told: list[AccessHeld | AccessReleased] = []
        holdings = Holdings(told.append)
        holdings.opened(grant("anna", 7), "T1")
        holdings.opened(grant("anna", 7), "T2")
        holdings.opened(grant("anna", 8), "T2")
        assert [] == told
        holdings.tick()
        assert [held("anna", 7, token="T2"), held("anna", 8, token="T2")] == told
        holdings.ended("anna", 7)
        holdings.tick()
        assert 2 == len(told)
        holdings.ended("anna", 7)
        holdings.tick()
        holdings.tick()
        assert [AccessReleased(user="anna", instance_id=7)] == told[2:]

    def test_what_did_not_last_is_not_told(self) -> None:
        """Neither a tunnel that has ended within the second, nor one that was followed by another."""
        told: list[AccessHeld | AccessReleased] = []
        holdings = Holdings(told.append)
        holdings.opened(grant("anna", 7), "T1")
        holdings.ended("anna", 7)
        holdings.tick()
        assert [] == told
        holdings.opened(grant("anna", 7), "T1")
        holdings.tick()
        holdings.ended("anna", 7)
        holdings.opened(grant("anna", 7), "T2")
        holdings.tick()
        assert [held("anna", 7, token="T1")] == told

    def test_another_address_is_told(self) -> None:
        """Of each, for tunnels to the old one may live on."""
        told: list[AccessHeld | AccessReleased] = []
        holdings = Holdings(told.append)
        for host in ("10.0.0.7", "10.0.0.8", "10.0.0.8"):
            holdings.opened(grant("anna", 7, host), "T1")
        holdings.tick()
        holdings.opened(grant("anna", 7, "10.0.0.9"), "T1")
        holdings.tick()
        assert ["10.0.0.7", "10.0.0.8", "10.0.0.9"] == [
            one.host for one in told if isinstance(one, AccessHeld)
        ]


def test_a_token_that_was_accepted() -> None:
    """What is told of the answer; the token is not shown."""
    instance = Instance(id=7, host="10.0.0.7", state="ACTIVE", owner="1", values={"computeId": "secret"})
    told = token_accepted(AccessToken("T1"), "anna", instance)
    assert TokenAccepted(user="anna", token="T1", instance_id=7, state="ACTIVE", host="10.0.0.7") == told
    assert "T1" not in repr(told)
