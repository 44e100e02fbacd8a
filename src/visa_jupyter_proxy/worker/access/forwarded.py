"""Who the client is: X-Forwarded-* and X-Request-Id count only when a trusted proxy sent them."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.sections import options
from visa_jupyter_proxy.worker.sockets.networks import of_one_client

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_HOP: Final = re.compile(rb"(?:([0-9.]+)|\[([0-9a-f:.]+)\])(?::[0-9]{1,5})?")
"""An address with a port, or in brackets, as some front proxies write it."""

_MOST_HOPS: Final = 32
"""Trusted proxies in a row that are believed; a trusted client may write thousands, 8 us each."""

_LONGEST_REMEMBERED: Final = 256
"""Bytes said of a client: a browser's say may be as long as a head, and different each time."""


class Client:
    """Where requests come from, as far as it can be trusted."""

    __slots__ = ("address", "host", "lines", "proto", "proto_is_known")

    def __init__(
        self, address: str, chain: bytes = b"", proto: bytes | None = None, host: bytes | None = None
    ) -> None:
        """`chain` is the X-Forwarded-For to send on; without one `address` alone is."""
        self.address = address
        """Of the browser, behind whatever trusted proxies there are."""
        self.proto = proto or b"http"
        self.proto_is_known = proto is not None
        """Whether a trusted proxy told the scheme that the browser used."""
        self.host = host
        """X-Forwarded-Host of a trusted proxy."""
        self.lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Real-IP: %b\r\n" % (
            chain or address.encode(),
            self.proto,
            address.encode(),
        )
        """What an instance is told of it."""

    @property
    def network(self) -> str:
        """What is bounded together: see `of_one_client`."""
        return of_one_client(self.address)


class _Read:
    """What was read of a field section, to be kept with it: reading it again takes 6 000 instructions."""

    __slots__ = ("by", "client", "peer")

    def __init__(self, by: "TrustedProxies", peer: str, client: Client) -> None:
        self.by = by
        self.peer = peer
        self.client = client


class TrustedProxies:
    """The networks of `TRUSTED_PROXIES`."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(map(ipaddress.ip_network, networks))
        self.trusts = lru_cache(maxsize=1024)(self._trusts)
        self._remembered = lru_cache(maxsize=1024)(self._client)

    def client(self, peer: str, request: Request) -> Client:
        """Read what `peer` (an IP address) says of the client it speaks for."""
        read = request.section.client
        if isinstance(read, _Read) and read.by is self and read.peer == peer:
            return read.client
        client = self._read(peer, request)
        request.section.client = _Read(self, peer, client)
        return client

    def _read(self, peer: str, request: Request) -> Client:
        if not self.trusts(peer):
            return self._remembered(peer, None, None, None)
        special = request.special
        hops = special.get(b"x-forwarded-for")
        chain = b",".join(hops) if hops is not None else None
        proto, host = request.one(b"x-forwarded-proto"), request.one(b"x-forwarded-host")
        said = len(chain or b"") + len(proto or b"") + len(host or b"")
        read = self._remembered if said <= _LONGEST_REMEMBERED else self._client
        return read(peer, chain, proto, host)

    def request_id(self, peer: str, request: Request) -> bytes | None:
        """Return the id that a trusted proxy gave the request."""
        values = request.special.get(b"x-request-id")
        if values is not None and self.trusts(peer) and _REQUEST_ID.fullmatch(values[-1]):
            return values[-1]
        return None

    def _client(self, peer: str, chain: bytes | None, proto: bytes | None, host: bytes | None) -> Client:
        scheme = (proto or b"").lower()  # as everywhere (RFC 3986 3.1)
        known = scheme if scheme in (b"http", b"https") else None
        if chain is None:
            return Client(peer, proto=known, host=host)
        hops = options([chain])
        return Client(self._first_not_trusted(peer, hops), b", ".join([*hops, peer.encode()]), known, host)

    def _first_not_trusted(self, peer: str, hops: list[bytes]) -> str:
        """Walk back to the first hop that is not trusted: everything before it may be invented."""
        reached = peer
        for hop in islice(reversed(hops), _MOST_HOPS):
            address = _address(hop)
            if address is None:
                break
            reached = address
            if not self.trusts(address):
                break
        return reached

    def _trusts(self, peer: str) -> bool:
        address = _unmapped(ipaddress.ip_address(peer))
        return any(address in network for network in self._networks)


def _address(hop: bytes) -> str | None:
    written = _HOP.fullmatch(hop)
    try:
        if written is not None and written[2] is not None:
            return str(_unmapped(ipaddress.IPv6Address(written[2].decode("ascii"))))
        return str(_unmapped(ipaddress.ip_address((written[1] if written else hop).decode("ascii"))))
    except ValueError:
        return None


def _unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IPv4-mapped address as the IPv4 one: a client has one address, however it is written."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
