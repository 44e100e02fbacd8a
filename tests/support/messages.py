"""Requests and responses from their lines, for tests of what is made of them."""

from visa_jupyter_proxy.worker.http1 import Request, Response, parse_request, parse_response
from visa_jupyter_proxy.worker.websocket import asks_for_websocket


def request(
    *fields: bytes, line: bytes = b"GET /jupyter/12/lab HTTP/1.1", host: bytes | None = b"visa.test"
) -> Request:
    """Return the request that has these fields."""
    hosts = [] if host is None else [b"Host: " + host]
    made = parse_request(b"\r\n".join([line, *hosts, *fields, b"", b""]))
    made.websocket = asks_for_websocket(made)
    return made


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> Response:
    """Return the response that has these fields."""
    return parse_response(b"\r\n".join([line, *fields, b"", b""]))
