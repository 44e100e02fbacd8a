"""Which tunnels are to end."""

import ipaddress
from collections.abc import Iterable

from visa_jupyter_proxy.mailbox import EndTunnels
from visa_jupyter_proxy.worker.authorization import Authorization
from visa_jupyter_proxy.worker.sockets import peer_address
from visa_jupyter_proxy.worker.tunnel import Tunnel


def end_tunnels(
    message: EndTunnels, connections: Iterable[object], authorization: Authorization, now: float
) -> None:
    """Do what `message` says; `now` on the loop's clock."""
    meant = [one for one in connections if isinstance(one, Tunnel) and _is_meant(one, message)]
    for tunnel in meant:
        tunnel.end(message.code, message.reason, now)
    if not message.forget_grants:
        return
    if message.notebook is None:
        authorization.forget_all(message.user, message.instance_id, message.not_host)
    for tunnel in meant:
        authorization.forget_all(tunnel.origin.user, tunnel.origin.instance_id, message.not_host)


def _is_meant(tunnel: Tunnel, message: EndTunnels) -> bool:
    origin = tunnel.origin
    return (
        message.user in (None, origin.user)
        and message.instance_id in (None, origin.instance_id)
        and message.notebook in (None, origin.notebook)
        and (message.not_host is None or _host(tunnel) != message.not_host)
    )


def _host(tunnel: Tunnel) -> str:
    """Return where the instance is: the socket knows, so nobody keeps it for thousands of tunnels."""
    return str(ipaddress.ip_address(peer_address(tunnel.up.transport)))
