"""Which tunnels are to end, and when."""

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from visa_jupyter_proxy.mailbox import EndTunnels
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.sockets.sockets import peer_address
from visa_jupyter_proxy.worker.tunnel import Tunnel

MOST_IN_A_SECOND: Final = 50
"""Browsers that are sent away while the time allows it: each comes back a moment later with a connection, and
with a question to the VISA API."""

_SPREAD: Final = 0.75
"""The part of a drain in which tunnels are told: 0.6 of `DRAIN_S`, of which control gives workers 0.8."""


class Departure:
    """Tells the tunnels of a worker that stops, one after the other, so that browsers come back likewise."""

    def __init__(self, connections: Collection[object], now: float, seconds: float) -> None:
        """Begin a drain of `seconds`, with the tunnels that are there `now`, on the loop's clock."""
        self._connections = connections
        tunnels = [one for one in connections if isinstance(one, Tunnel)]
        self._left: Iterator[Tunnel] = iter(tunnels)
        self._told = 0
        self._began = now
        self._every_s = min(1 / MOST_IN_A_SECOND, _SPREAD * seconds / max(1, len(tunnels)))

    def step(self, now: float) -> None:
        """Tell those whose time it is; to be called often."""
        while self._told * self._every_s <= now - self._began:
            tunnel = next(self._left, None)
            if tunnel is None:
                return
            if tunnel in self._connections:  # it may have ended by itself
                tunnel.drain()
                self._told += 1

    def cut(self) -> None:
        """End at once all tunnels that are left."""
        for tunnel in [one for one in self._connections if isinstance(one, Tunnel)]:
            tunnel.cut()


def end_tunnels(
    message: EndTunnels, connections: Iterable[object], authorization: Authorization, now: float
) -> None:
    """Do what `message` says; `now` on the loop's clock."""
    meant = [one for one in connections if isinstance(one, Tunnel) and _is_meant(one, message)]
    for tunnel in meant:
        tunnel.end(message.code, message.reason, now)
    if not message.forget_grants:
        return
    whose = {(message.user, message.instance_id)}
    if message.notebooks is not None:
        whose = {(tunnel.origin.user, tunnel.origin.instance_id) for tunnel in meant}
    for user, instance_id in whose:
        authorization.forget_all(user, instance_id, message.not_host)


def _is_meant(tunnel: Tunnel, message: EndTunnels) -> bool:
    origin = tunnel.origin
    return (
        message.user in (None, origin.user)
        and message.instance_id in (None, origin.instance_id)
        and (message.notebooks is None or origin.notebook in message.notebooks)
        and (message.not_host is None or _host(tunnel) != message.not_host)
    )


def _host(tunnel: Tunnel) -> str:
    """Return where the instance is: the socket knows, so nobody keeps it for thousands of tunnels."""
    return str(ipaddress.ip_address(peer_address(tunnel.up.transport)))
