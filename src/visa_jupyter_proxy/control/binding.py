"""Binding a listening socket: from a host and a port, as settings have them, to a socket."""

import socket


def bound(host: str, port: int, *, backlog: int) -> socket.socket:
    """Bind and listen; `::` is all addresses, IPv6 and IPv4. Raises `OSError`."""
    family, address = resolved(host, port)
    dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=dual)


def resolved(host: str, port: int) -> tuple[int, tuple[str, int]]:
    """Give the address family and the address. Raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, (str(address[0]), int(address[1]))


def why_not(error: OSError) -> str:
    """Say why a socket cannot be bound, without what Python adds: the address, which whoever asks says."""
    return (error.strerror or str(error)).partition(" (while ")[0]
