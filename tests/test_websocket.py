"""WebSocket's own words: how one is asked for and accepted (RFC 6455)."""

import pytest

from support.messages import request, response
from visa_jupyter_proxy.errors import BadRequest, ProxyError, UpgradeRequired
from visa_jupyter_proxy.worker.websocket import accepts_websocket

_WEBSOCKET = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to that key: both are the example of RFC 6455 1.3."""


def _refused(error: type[ProxyError], *fields: bytes) -> None:
    with pytest.raises(error):
        request(*fields)


class TestHandshake:
    """RFC 6455 4.1 and 4.2.1."""

    def test_146_what_browsers_send(self) -> None:
        """In their spellings."""
        assert request(*_WEBSOCKET).websocket

    @pytest.mark.parametrize(
        "fields",
        [
            (b"Connection: Upgrade", b"Upgrade: h2c"),
            (b"Connection: Upgrade", b"Upgrade: foo"),
            (b"Upgrade: websocket",),
            (b"Connection: keep-alive", *_WEBSOCKET[1:]),
        ],
    )
    def test_144_241_other_upgrades_are_ignored(self, fields: tuple[bytes, ...]) -> None:
        """As if they had not been offered, a body included (RFC 9110 7.8)."""
        asked = request(*fields, b"Content-Length: 5", line=b"POST /x HTTP/1.1")
        assert (False, 5) == (asked.websocket, asked.length)
        assert not request(*fields).websocket

    @pytest.mark.parametrize("line", [b"POST /x HTTP/1.1", b"GET /x HTTP/1.0"])
    def test_only_get_of_http_1_1_upgrades(self, line: bytes) -> None:
        """Others are plain requests."""
        assert not request(*_WEBSOCKET, line=line).websocket

    @pytest.mark.parametrize(
        "key",
        [
            (),
            (b"Sec-WebSocket-Key: abc",),
            (b"Sec-WebSocket-Key:",),
            (_WEBSOCKET[3], _WEBSOCKET[3]),
            (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x",),
        ],
    )
    def test_147_242_one_valid_key(self, key: tuple[bytes, ...]) -> None:
        """16 bytes in base64, once."""
        _refused(BadRequest, *_WEBSOCKET[:3], *key)

    @pytest.mark.parametrize(
        "version", [(), (b"Sec-WebSocket-Version: 8",), (b"Sec-WebSocket-Version: 13, 8",)]
    )
    def test_147_one_version(self, version: tuple[bytes, ...]) -> None:
        """426 tells which (RFC 6455 4.4)."""
        _refused(UpgradeRequired, *_WEBSOCKET[:2], *version, _WEBSOCKET[3])

    @pytest.mark.parametrize("body", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
    def test_a_body_is_refused(self, body: bytes) -> None:
        """Nothing would tell whether its bytes are frames."""
        _refused(BadRequest, *_WEBSOCKET, body)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ((b"Connection: Upgrade", b"Upgrade: WebSocket", _ACCEPT), True),
            ((b"Connection: keep-alive, upgrade", b"Upgrade: websocket", _ACCEPT), True),
            ((b"Upgrade: websocket", _ACCEPT), False),
            ((b"Connection: Upgrade", _ACCEPT), False),
            ((b"Connection: Upgrade", b"Upgrade: foo", _ACCEPT), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket"), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket", _ACCEPT.lower()), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket", _ACCEPT, _ACCEPT), False),
        ],
    )
    def test_152_the_answer_belongs_to_the_key(self, fields: tuple[bytes, ...], *, expected: bool) -> None:
        """All three fields, exactly."""
        answer = response(*fields, line=b"HTTP/1.1 101 Switching")
        assert expected is accepts_websocket(request(*_WEBSOCKET), answer)
