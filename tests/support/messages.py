"""Requests and responses from their lines, for tests of what is made of them."""

from visa_jupyter_proxy.worker.http.lines import Fields, Lines
from visa_jupyter_proxy.worker.http.request import Request, parse_request
from visa_jupyter_proxy.worker.http.response import Response, parse_response
from visa_jupyter_proxy.worker.http.websocket import asks_for_websocket


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


def fields(lines: Lines) -> Fields:
    """Return names and values of field lines."""
    return [(name, value[1:]) for name, _, value in (line.partition(b":") for line in _split(lines))]


def _split(lines: Lines) -> Lines:
    joined = b"".join(lines)
    assert not joined or joined.endswith(b"\r\n"), "a line without its end"
    return joined.split(b"\r\n")[:-1]
