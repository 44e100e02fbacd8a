"""What the VISA API granted to one token for one instance, and where that instance may be."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from visa_jupyter_proxy.errors import (
    InstanceAddressRefused,
    InstanceDeleted,
    InstanceFailed,
    InstanceNotReady,
    InstanceStopped,
)
from visa_jupyter_proxy.visa_api import Access, Instance

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


class Grant:
    """A permission: made only from an answer of the API, never from what a token says of itself."""

    __slots__ = (
        "expires",
        "host",
        "instance_id",
        "is_stale",
        "is_up",
        "jupyter_answers",
        "key",
        "state",
        "usable_until",
        "user",
        "values",
    )

    def __init__(
        self,
        key: tuple[bytes, int],
        instance: Instance,
        host: str,
        user: str,
        *,
        expires: float,
        usable_until: float,
    ) -> None:
        self.key = key
        """Digest of the whole token, and the instance id."""
        self.instance_id = instance.id
        self.is_up = instance.is_up
        """Whether the state was one in which services answer: it explains a failed connect, no more."""
        self.state = instance.state
        self.jupyter_answers = instance.jupyter_answers
        self.host = host
        """The checked address, in canonical form."""
        self.values: Mapping[str, str] = instance.values
        """What `setHeaders` may name; secret."""
        self.user = user
        """For logs and records: the token's `sub` or, without one, a digest of the token."""
        self.expires = expires
        """When the API is asked again, on the monotonic clock. Put off while the API does not answer."""
        self.usable_until = usable_until
        """When it is over whatever the API does: it is put off no further."""
        self.is_stale = False
        """Whether it has been put off, for the API did not answer."""

    def __repr__(self) -> str:
        return f"Grant(instance_id={self.instance_id}, user={self.user!r})"


_EXPLAINED: Final[dict[str, type[InstanceNotReady]]] = {
    "STOPPING": InstanceStopped,
    "STOPPED": InstanceStopped,
    "ERROR": InstanceFailed,
    "DELETING": InstanceDeleted,
    "DELETED": InstanceDeleted,
}
"""States that say more than that an instance is not ready."""


def not_ready(about: Instance | Access | Grant, detail: str) -> InstanceNotReady:
    """Make the error of an instance that is not up and cannot be reached: its state explains it."""
    error = _EXPLAINED.get(about.state, InstanceNotReady)(detail)
    error.state, error.jupyter_answers = about.state, about.jupyter_answers
    return error


class InstanceNetworks:
    """Where an instance may be: what keeps an API answer from pointing us at ourselves (cases 198 to 201)."""

    def __init__(self, networks: Sequence[str] | None) -> None:
        """`networks` in CIDR form replace the default: unicast, not loopback, not link-local."""
        self._networks = None if networks is None else tuple(map(ipaddress.ip_network, networks))

    def check(self, host: str | None) -> str:
        """Return the address in canonical form. No name is ever resolved.

        Raises `InstanceNotReady` for none, `InstanceAddressRefused` for a wrong one.
        """
        if host is None:
            raise InstanceNotReady("no address yet")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise InstanceAddressRefused("not an IP address") from None
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                raise InstanceAddressRefused("an address with a zone")
            address = address.ipv4_mapped or address
        if not self._allows(address):
            raise InstanceAddressRefused("outside INSTANCE_NETWORKS")
        return str(address)

    def _allows(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if self._networks is not None:
            return any(address in network for network in self._networks)
        return not (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address == _BROADCAST
            or (address.version == 4 and address in _THIS_NETWORK)
        )


_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
"""RFC 1122 3.2.1.3: Linux connects 0.x to itself."""
