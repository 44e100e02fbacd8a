"""The access log: one line for each exchange, and no secret in it (case 207)."""

import asyncio
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from support.conversation import Conversation, conversation
from support.log import log_kept
from visa_jupyter_proxy import logs
from visa_jupyter_proxy.errors import (
    BadRequest,
    ClientGone,
    InstanceUnreachable,
    Internal,
    NoToken,
    ProxyError,
    VisaTimeout,
)
from visa_jupyter_proxy.mailbox import Traffic, TunnelEnded
from visa_jupyter_proxy.worker.accounting.records import (
    AccessLog,
    log_exchange,
    log_refusal,
    log_tunnel,
    origin,
    tunnel_ended,
)
from visa_jupyter_proxy.worker.sides import FollowedSide
from visa_jupyter_proxy.worker.tunnel import RESTARTING, Owner, Tunnel


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return what the log writes; afterwards it goes where it did."""
    stream = io.StringIO()
    with log_kept():
        logs.configure(stream=stream)
        yield stream


def _lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def _request(talk: Conversation) -> None:
    talk.client(
        "GET /jupyter/7/lab?token=SECRET HTTP/1.1",
        "Host: visa",
        "User-Agent: Browser/1",
        "Authorization: Bearer SECRET",
        "Cookie: access_token=SECRET; b=SECRET",
        "",
        "",
    )


def _answered(log: io.StringIO, access_log: str, status: str = "200 OK") -> list[dict[str, object]]:
    with conversation() as talk:
        _request(talk)
        talk.connected()
        talk.now += 1.5
        talk.instance(f"HTTP/1.1 {status}", "Content-Length: 5", "Set-Cookie: SECRET", "", "hello")
        _forget(talk)
        log_exchange(AccessLog(access_log), talk.exchange, talk.now)
    return _lines(log)


def _failed(log: io.StringIO, access_log: str, error: ProxyError) -> list[dict[str, object]]:
    with conversation() as talk:
        _request(talk)
        talk.fails(error)
        _forget(talk)
        log_exchange(AccessLog(access_log), talk.exchange, talk.now)
    return _lines(log)


def _forget(talk: Conversation) -> None:
    talk._to_client.clear()
    if talk.wire is not None:
        talk.wire.sent.clear()


class TestExchanges:
    """What became of a request."""

    def test_207_an_answer(self, log: io.StringIO) -> None:
        """All that an operator asks for."""
        (line,) = _answered(log, "all")
        line.pop("timestamp")
        assert {
            "level": "info",
            "event": "request",
            "client": "192.0.2.7",
            "request_id": "request-1",
            "method": "GET",
            "path": "/jupyter/7/lab",
            "route": "Jupyter",
            "instance": 7,
            "user": "anna",
            "user_agent": "Browser/1",
            "status": 200,
            "reason": None,
            "detail": None,
            "duration": 1.5,
            "bytes_up": 0,
            "bytes_down": 5,
        } == line

    def test_207_a_refusal(self, log: io.StringIO) -> None:
        """With its reason; nobody was authorised."""
        (line,) = _failed(log, "all", NoToken("none at all"))
        assert (401, "no_token", "none at all", None, "notice") == (
            line["status"],
            line["reason"],
            line["detail"],
            line["user"],
            line["level"],
        )

    @pytest.mark.parametrize(
        ("error", "level"),
        [(VisaTimeout("x"), "warning"), (Internal("x"), "error"), (NoToken("x"), "notice")],
    )
    def test_the_level_tells_whose_fault_it_is(self, log: io.StringIO, error: ProxyError, level: str) -> None:
        """Ours, somebody's behind us, or the client's."""
        assert [level] == [line["level"] for line in _failed(log, "errors", error)]

    def test_no_secret_is_in_it(self, log: io.StringIO) -> None:
        """No query, no token, no cookie."""
        _answered(log, "all")
        _failed(log, "all", NoToken("x"))
        assert "SECRET" not in log.getvalue()

    def test_errors_alone(self, log: io.StringIO) -> None:
        """Refusals and 5xx, not answers; an instance's 404 is its own affair."""
        _answered(log, "errors")
        _answered(log, "errors", "404 Not Found")
        assert [] == _lines(log)
        (line,) = _answered(log, "errors", "500 Internal Server Error")
        assert (500, None, "warning") == (line["status"], line["reason"], line["level"])

    def test_a_client_that_leaves(self, log: io.StringIO) -> None:
        """499 in the whole log; no error."""
        with conversation() as talk:
            _request(talk)
            talk.client_leaves()
            log_exchange(AccessLog("errors"), talk.exchange, talk.now)
            assert [] == _lines(log)
            log_exchange(AccessLog("all"), talk.exchange, talk.now)
        (line,) = _lines(log)
        assert (499, "client_gone", "info") == (line["status"], line["reason"], line["level"])

    @pytest.mark.parametrize(
        ("said", "logged"),
        [
            (b"a" * 5000, "a" * 256),
            (b'Caf\xe9 "\t', 'Caf\\xe9 "'),
            (b"x token=SECRET y", "x token=*** y"),
            (None, None),
            (b"", ""),
        ],
    )
    def test_a_user_agent_is_bounded_and_escaped(
        self, log: io.StringIO, said: bytes | None, logged: str | None
    ) -> None:
        """A client may say of itself what it likes."""
        lines = [] if said is None else [b"User-Agent: " + said]
        with conversation() as talk:
            talk.client("GET /jupyter/7/ HTTP/1.1", "Host: visa", *lines, "", "")
            talk.client_leaves()
            log_exchange(AccessLog("all"), talk.exchange, talk.now)
        (line,) = _lines(log)
        assert logged == line["user_agent"]
        assert log.getvalue().isascii()

    def test_without_addresses(self, log: io.StringIO) -> None:
        """Neither of requests, nor of tunnels, nor of what was no request (LOG_CLIENT_ADDRESS=off)."""
        access_log = AccessLog("all", addresses=False)
        with conversation() as talk:
            _request(talk)
            talk.fails(NoToken("none at all"))
            _forget(talk)
            log_exchange(access_log, talk.exchange, talk.now)
        log_tunnel(access_log, _tunnel(), 0.0)
        log_refusal(access_log, "192.0.2.7", b"id", BadRequest("x"))
        assert [None] * 3 == [line["client"] for line in _lines(log)]
        assert "192.0.2." not in log.getvalue()

    def test_off_is_off(self, log: io.StringIO) -> None:
        """Whatever happens."""
        _answered(log, "off", "500 Internal Server Error")
        _failed(log, "off", Internal("x"))
        log_refusal(AccessLog("off"), "192.0.2.7", b"id", BadRequest("x"))
        assert "" == log.getvalue()

    def test_a_path_is_cut(self, log: io.StringIO) -> None:
        """A line stays a line."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/" + "a" * 5000 + " HTTP/1.1", "Host: visa", "", "")
            talk.client_leaves()
            log_exchange(AccessLog("all"), talk.exchange, talk.now)
        (line,) = _lines(log)
        assert 256 == len(str(line["path"]))


def test_207_what_was_no_request(log: io.StringIO) -> None:
    """There is no method and no path to tell."""
    log_refusal(AccessLog("errors"), "192.0.2.7", b"id-1", BadRequest("bad request line"))
    (line,) = _lines(log)
    assert ("192.0.2.7", "id-1", 400, "bad_request", "bad request line", "notice") == (
        line["client"],
        line["request_id"],
        line["status"],
        line["reason"],
        line["detail"],
        line["level"],
    )


def _tunnel(*, notebook: int | None = None) -> Tunnel:
    """Make the tunnel of a WebSocket that was asked for at 1000.0, as its end sees it."""
    with conversation() as talk:
        talk.client(
            "GET /jupyter/7/api/kernels/k/channels?session_id=SECRET HTTP/1.1",
            "Host: visa",
            "User-Agent: Browser/1",
            "Authorization: Bearer SECRET",
            "Cookie: access_token=SECRET",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "",
            "",
        )
        talk.connected()
        _forget(talk)
        exchange = talk.exchange
        assert exchange.match is not None
        assert exchange.grant is not None
        came_from = origin(exchange, exchange.match, exchange.grant, "192.0.2.1", notebook=notebook)
        talk.client_leaves()
    owner = SimpleNamespace(now=lambda: 0.0, tunnel_idle_s=0.0)
    tunnel = Tunnel(
        cast("asyncio.Transport", None), cast("asyncio.Transport", None), cast("Owner", owner), came_from
    )
    tunnel.down.received, tunnel.up.received = 11, 5
    return tunnel


class TestTunnels:
    """What became of a WebSocket."""

    def test_207_a_clean_end(self, log: io.StringIO) -> None:
        """One line, when it is over, as for a request."""
        tunnel = _tunnel()
        log_tunnel(AccessLog("all"), tunnel, tunnel.origin.began + 1.5)
        (line,) = _lines(log)
        line.pop("timestamp")
        assert {
            "level": "info",
            "event": "tunnel",
            "client": "192.0.2.7",
            "request_id": "request-1",
            "method": "GET",
            "path": "/jupyter/7/api/kernels/k/channels",
            "route": "Jupyter",
            "instance": 7,
            "user": "anna",
            "user_agent": "Browser/1",
            "status": 101,
            "reason": None,
            "detail": None,
            "duration": 1.5,
            "bytes_up": 11,
            "bytes_down": 5,
        } == line

    @pytest.mark.parametrize(
        ("access_log", "error", "level"),
        [
            ("all", InstanceUnreachable("reset"), "warning"),
            ("all", ClientGone("reset"), "info"),
            ("errors", InstanceUnreachable("reset"), "warning"),
            ("errors", ClientGone("reset"), "info"),
            ("errors", None, "info"),
            ("off", InstanceUnreachable("reset"), None),
            ("off", None, None),
        ],
    )
    def test_whose_fault_it_was(
        self, log: io.StringIO, access_log: str, error: ProxyError | None, level: str | None
    ) -> None:
        """Clients that leave are everyday life. Every end has a line, unless nothing has one."""
        tunnel = _tunnel()
        tunnel.error = error
        log_tunnel(AccessLog(access_log), tunnel, 0.0)
        assert ([] if level is None else [level]) == [line["level"] for line in _lines(log)]

    def test_one_that_we_have_ended(self, log: io.StringIO) -> None:
        """Access that has ended is a refusal, with its reason; a worker that stops is everyday life."""
        for reason in ("access has ended", RESTARTING):
            tunnel = _tunnel()
            tunnel.ended_for = reason
            log_tunnel(AccessLog("errors"), tunnel, 0.0)
        assert [("access has ended", "notice"), (RESTARTING, "info")] == [
            (line["reason"], line["level"]) for line in _lines(log)
        ]

    def test_nothing_secret_is_kept(self) -> None:
        """Neither token, nor cookie, nor query: it lives for hours."""
        assert "SECRET" not in repr(_tunnel().origin)

    def test_what_control_is_told_of_a_kernel_channel(self) -> None:
        """When the user last did something, in the time of clocks."""
        tunnel = _tunnel(notebook=3)
        nothing = Traffic(bytes_up=11, bytes_down=5)
        assert TunnelEnded(3, "closed", 5000.0, nothing) == tunnel_ended(tunnel, 3, 70.0, 5000.0)
        tunnel.first_interacted_at, tunnel.interacted_at, tunnel.error = 50.0, 60.0, ClientGone("reset")
        tunnel.up.frames.feed(b"\x82\x00" * 2)
        assert isinstance(tunnel.down, FollowedSide)
        tunnel.down.frames.feed(b"\x82\x80abcd")
        traffic = Traffic(
            bytes_up=11,
            bytes_down=5,
            messages_up=1,
            messages_down=2,
            first_interaction_at=4980.0,
            last_interaction_at=4990.0,
        )
        assert TunnelEnded(3, "client_gone", 5000.0, traffic) == tunnel_ended(tunnel, 3, 70.0, 5000.0)
