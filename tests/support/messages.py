"""Requests and responses from their lines, for tests of what is made of them."""

from visa_jupyter_proxy.worker.http1 import Request, Response, parse_request, parse_response


def request(
    *fields: bytes, line: bytes = b"GET /jupyter/12/lab HTTP/1.1", host: bytes | None = b"visa.test"
) -> Request:
    """Return the request that has these fields."""
    hosts = [] if host is None else [b"Host: " + host]
    return parse_request(b"\r\n".join([line, *hosts, *fields, b"", b""]))


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> Response:
    """Return the response that has these fields."""
    return parse_response(b"\r\n".join([line, *fields, b"", b""]))
