"""What is told to whom, when a request cannot be served.

Fixed texts: nothing of the request, the instance or an exception is in them.
"""

import json
from http import HTTPStatus

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.lines import Lines


def error_page(error: ProxyError, request_id: bytes, date: bytes) -> tuple[bytes, Lines, bytes]:
    """Return reason phrase, field lines and body of the answer to a request that failed with `error`."""
    content = {"error": error.error, "message": error.message, "requestId": request_id.decode("ascii")}
    body = json.dumps(content).encode() + b"\n"
    lines = [
        b"Content-Type: application/json\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"Date: %b\r\n" % date,
        b"Cache-Control: no-store\r\n",
        b"X-Content-Type-Options: nosniff\r\n",
        b"X-Request-Id: %b\r\n" % request_id,
        *(f"{name}: {value}\r\n".encode() for name, value in error.fields),
    ]
    return HTTPStatus(error.status).phrase.encode(), lines, body
