"""Who the client is: X-Forwarded-* and X-Request-Id count only when a trusted proxy sent them."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from visa_jupyter_proxy.worker.http1 import Request, options

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Client:
    """Where a request comes from, as far as it can be trusted."""

    __slots__ = ("address", "chain", "host", "proto", "proto_is_known", "request_id")

    def __init__(self, address: str) -> None:
        self.address = address
        """Of the browser, behind whatever trusted proxies there are."""
        self.chain = address.encode()
        """X-Forwarded-For to send on."""
        self.proto = b"http"
        self.proto_is_known = False
        """Whether a trusted proxy told the scheme that the browser used."""
        self.host: bytes | None = None
        """X-Forwarded-Host of a trusted proxy."""
        self.request_id: bytes | None = None


class TrustedProxies:
    """The networks of `TRUSTED_PROXIES`."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(map(ipaddress.ip_network, networks))
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def client(self, peer: str, request: Request) -> Client:
        """Read what `peer` (an IP address) says of the client it speaks for."""
        client = Client(peer)
        if not self.trusts(peer):
            return client
        special = request.special
        if b"x-forwarded-for" in special:
            self._read_chain(client, peer, options(special[b"x-forwarded-for"]))
        if (proto := request.one(b"x-forwarded-proto")) in (b"http", b"https"):
            client.proto, client.proto_is_known = proto, True
        client.host = request.one(b"x-forwarded-host")
        request_id = request.one(b"x-request-id")
        if request_id is not None and _REQUEST_ID.fullmatch(request_id):
            client.request_id = request_id
        return client

    def _read_chain(self, client: Client, peer: str, hops: list[bytes]) -> None:
        """Walk back to the first hop that is not trusted: everything before it may be invented."""
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            client.address = address
            if not self.trusts(address):
                break
        client.chain = b", ".join([*hops, peer.encode()])

    def _trusts(self, peer: str) -> bool:
        address = _unmapped(ipaddress.ip_address(peer))
        return any(address in network for network in self._networks)


def _address(hop: bytes) -> str | None:
    try:
        return str(_unmapped(ipaddress.ip_address(hop.decode("ascii"))))
    except ValueError:
        return None


def _unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IPv4-mapped address as the IPv4 one: a client has one address, however it is written."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
