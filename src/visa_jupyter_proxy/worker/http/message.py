"""What requests and responses have in common (RFC 9112 2.1)."""

from visa_jupyter_proxy.worker.http.sections import Section


class Message:
    """What is read of the head of either."""

    __slots__ = ("chunked", "connection", "keep_alive", "length", "minor", "special")

    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    keep_alive: bool
    """Whether the sender allows another message on this connection (RFC 9112 9.3)."""

    def __init__(self, minor: int, section: Section) -> None:
        self.minor = minor
        self.special = section.special
        self.length = section.length
        self.chunked = section.chunked
        connection = self.connection = section.connection
        self.keep_alive = b"close" not in connection and (minor == 1 or b"keep-alive" in connection)

    def one(self, name: bytes) -> bytes | None:
        """Return the last value of a field that is read, or None."""
        values = self.special.get(name)
        return values[-1] if values else None
