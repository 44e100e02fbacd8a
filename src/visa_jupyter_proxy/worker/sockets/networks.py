"""Which addresses are one client's."""

import ipaddress


def of_one_client(address: str) -> str:
    """Return what is bounded together: an IPv4 address, or the 2^64 of IPv6 that a client has (RFC 6177)."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False).network_address)
