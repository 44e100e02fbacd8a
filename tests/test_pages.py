"""What is told to whom, when a request cannot be served (cases 203, 204)."""

import json

import pytest

from support.messages import fields
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http1 import parse_response, response_head
from visa_jupyter_proxy.worker.pages import ADVICE, error_page

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

    def test_203_204_a_page_is_fixed(self, error: type[ProxyError]) -> None:
        """What happened, what to do and the request's id, in a page that needs nothing else."""
        reason, lines, body = error_page(error("10.0.0.12 <b>"), b"id-1", b"today", for_people=True)
        head = parse_response(response_head(error.status, reason, lines))
        page = body.decode()
        assert (error.status, len(body)) == (head.status, head.length)
        told = (error.message, ADVICE[error.error], "id-1", f"{error.status} {reason.decode()}.")
        assert [] == [text for text in told if page.count(text) != 1]
        assert [] == [text for text in ("10.0.0.12", "<b>", "<script", "%(") if text in page]

    def test_what_a_status_demands(self, error: type[ProxyError]) -> None:
        """401 a challenge, 405 the methods, 426 the version, 503 when to come again (RFC 9110 15)."""
        names = {name.lower() for name, _ in fields(error_page(error(""), b"id-1", b"today")[1])}
        needed = {401: b"www-authenticate", 405: b"allow", 426: b"sec-websocket-version", 503: b"retry-after"}
        assert {needed[error.status]} <= names if error.status in needed else b"retry-after" not in names


def test_advice_is_for_what_can_be_told() -> None:
    """And for nothing else; neither it nor a message could be markup."""
    assert {error.error for error in _ALL} == set(ADVICE)
    texts = [*ADVICE.values(), *(error.message for error in _ALL)]
    assert [] == [text for text in texts if set(text) & set("<>&%") or not text.endswith(".")]
