"""What is told to whom, when a request cannot be served.

Fixed texts: nothing of the request, the instance or an exception is in them.
"""

import json
from http import HTTPStatus

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http1 import Fields


def error_page(error: ProxyError, request_id: bytes, date: bytes) -> tuple[bytes, Fields, bytes]:
    """Return reason phrase, fields and body of the answer to a request that failed with `error`."""
    content = {"error": error.error, "message": error.message, "requestId": request_id.decode("ascii")}
    body = json.dumps(content).encode() + b"\n"
    fields = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Date", date),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Request-Id", request_id),
        *((name.encode(), value.encode()) for name, value in error.fields),
    ]
    return HTTPStatus(error.status).phrase.encode(), fields, body
