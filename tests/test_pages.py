"""What is told to whom, when a request cannot be served (cases 203, 204)."""

import json

import pytest

from support.messages import fields
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http1 import parse_response, response_head
from visa_jupyter_proxy.worker.pages import error_page

_ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ProxyError)]
_ALL.remove(ProxyError)
_ALL.remove(errors.ClientGone)  # never sent


@pytest.mark.parametrize("error", _ALL, ids=lambda error: error.__name__)
class TestEveryError:
    """Fixed texts, safe fields."""

    def test_203_204_the_body_is_fixed(self, error: type[ProxyError]) -> None:
        """Error, message and the request's id, and nothing of what happened."""
        _, _, body = error_page(error("10.0.0.12 secret"), b"id-1", b"today")
        expected = {"error": error.error, "message": error.message, "requestId": "id-1"}
        assert expected == json.loads(body)

    def test_203_the_head_is_complete(self, error: type[ProxyError]) -> None:
        """With its length, and what keeps browsers and caches from making more of it."""
        reason, lines, body = error_page(error("10.0.0.12 secret"), b"id-1", b"today")
        head = parse_response(response_head(error.status, reason, lines))
        assert (error.status, len(body)) == (head.status, head.length)
        sent = dict(fields(head.lines))
        assert (b"application/json", b"no-store", b"nosniff", b"today") == (
            sent[b"Content-Type"],
            sent[b"Cache-Control"],
            sent[b"X-Content-Type-Options"],
            sent[b"Date"],
        )
        assert b"secret" not in b"".join(lines) + reason

    def test_what_a_status_demands(self, error: type[ProxyError]) -> None:
        """401 a challenge, 405 the methods, 426 the version, 503 when to come again (RFC 9110 15)."""
        names = {name.lower() for name, _ in fields(error_page(error(""), b"id-1", b"today")[1])}
        needed = {401: b"www-authenticate", 405: b"allow", 426: b"sec-websocket-version", 503: b"retry-after"}
        assert {needed[error.status]} <= names if error.status in needed else b"retry-after" not in names
