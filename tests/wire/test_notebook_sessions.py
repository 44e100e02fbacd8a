"""Notebook sessions: what VISA is told of WebSockets to kernels (contract sections 2 and 4)."""

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

from support.client import RawClient, upgrade
from support.instance import Connection, echo
from support.proxy import running_proxy
from support.sessions import rows
from support.visa_api import Answer, Hold, Request
from wire.conftest import Wire, production

PING: Final = b"\x89\x80abcd"
"""As a browser sends it: masked."""

KERNEL: Final = "0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b"


def frame(text: bytes) -> bytes:
    """Write a text message as a browser sends it; the mask changes nothing."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2)
    return b"\x81" + size + bytes(4) + text


def jwt(**claims: object) -> str:
    """Write a token with these claims; nobody verifies it."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def channels(session: str, kernel: str = KERNEL) -> str:
    """Write the rest of a kernel channel's path; `session` is the whole query."""
    return f"/api/kernels/{kernel}/channels?{session}"


def sessions(wire: Wire) -> list[tuple[str, str, bool]]:
    """Give kernel, session and whether it is active of all rows of this instance at VISA."""
    found = [row for row in wire.api.notebooks if row.key[0] == wire.number]
    return [(row.key[1], row.key[2], row.active) for row in found]


def told(wire: Wire) -> list[Request]:
    """Give the reports about this instance, in order."""
    return [r for r in list(wire.api.requests) if r.endpoint in ("open", "close") and _is_about(r, wire)]


def of_the_journal(wire: Wire, query: str) -> list[list[Any]]:
    """Read the journal: the rest of the rows whose first column is this instance."""
    found = rows(wire.proxy.directory / "data" / "journal.sqlite3", query)
    return [rest for number, *rest in map(list, found) if number == wire.number]


def journalled(wire: Wire) -> list[tuple[Any, ...]]:
    """Give kernel, session and whether it has ended of all of this instance in the journal."""
    query = "SELECT instance_id, kernel_id, session_id, closed_at IS NOT NULL FROM sessions"
    return [(kernel, session, bool(ended)) for kernel, session, ended in of_the_journal(wire, query)]


def connect(wire: Wire, rest: str) -> RawClient:
    """Open a WebSocket."""
    client = wire.client()
    assert client.ask(upgrade(wire.path(rest), token=wire.token)).status == 101
    return client


def open_and_close_one_more(wire: Wire) -> None:
    """Show, by a session that is told of from its start to its end, that no other report waits."""
    with connect(wire, channels("session_id=last", "last")):
        wire.api.wait(lambda: ("last", "last", True) in sessions(wire))
    wire.api.wait(lambda: ("last", "last", False) in sessions(wire))


def _is_about(request: Request, wire: Wire) -> bool:
    return request.path.split("/")[4] == str(wire.number)


class TestReports:
    """Which reports there are, and when."""

    def test_208_224_a_kernel_channel_is_a_session(self, wire: Wire) -> None:
        """Open with the user's token when the 101 has come, close without one when the socket has gone."""
        wire.instance.play(echo)
        with connect(wire, channels("session_id=A&x=1")):
            wire.api.wait(lambda: sessions(wire))
            assert [(KERNEL, "A", True)] == sessions(wire)
        wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))
        path = f"/api/jupyter/instances/{wire.number}/notebook/"
        assert [
            ("POST", path + "open", f"Bearer {wire.token}"),
            ("POST", path + "close", None),
        ] == [(r.method, r.path, r.headers.get("Authorization")) for r in told(wire)]
        for report in told(wire):
            assert {"kernelId": KERNEL, "sessionId": "A"} == json.loads(report.body)
            assert report.headers["Content-Type"].startswith("application/json")

    @pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
    def test_208_a_socket_that_is_refused_is_none(self, wire: Wire, status: int) -> None:
        """Without a 101 there is nothing to tell, and nothing in the journal."""

        def script(connection: Connection) -> None:
            if not connection.instance.requests:
                connection.request_head()
                connection.send(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            echo(connection)

        wire.instance.play(script)
        with wire.client() as client:
            data = upgrade(wire.path(channels("session_id=A")), token=wire.token)
            assert status == client.ask(data).status
        open_and_close_one_more(wire)
        assert [("last", "last", False)] == sessions(wire)
        assert [("last", "last", True)] == journalled(wire)

    @pytest.mark.parametrize("trouble", ["500", "garbage", "reset", "slow", "refused"])
    def test_209_the_websocket_waits_for_no_report(self, wire: Wire, trouble: str) -> None:
        """The 101 comes, and the tunnel works, before the API has answered; the report follows."""
        wire.instance.play(echo)
        assert wire.ask(wire.get("/so-that-there-is-a-grant")).status == 200  # echo answers
        hold = Hold()
        match trouble:
            case "refused":
                wire.api.down()
            case "slow":
                wire.api.script("open", Answer(hold=hold))
            case "500":
                wire.api.script("open", Answer(status=500), Answer(status=503))
            case "garbage":
                wire.api.script("open", Answer(raw=b"SSH-2.0-what\r\n"))
            case "reset":
                wire.api.script("open", Answer(reset=True))
        try:
            client = connect(wire, channels("session_id=A"))
            client.send(b"hello")
            assert b"hello" == client.exactly(5)
            assert [] == sessions(wire) or trouble not in ("refused", "slow")
        finally:
            hold.release()
            wire.api.up()
        with client:
            wire.api.wait(lambda: [(KERNEL, "A", True)] == sessions(wire))
        wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))

    def test_209_an_api_that_hangs(self, wire: Wire, tmp_path: Path, instance_port: int) -> None:
        """The attempt is given up after `API_TIMEOUT_S`, and made again."""
        wire.instance.play(echo)
        hold = Hold()
        with running_proxy(
            tmp_path, api_url=wire.api.url, routes=production(instance_port), API_TIMEOUT_S="1"
        ) as wire.proxy:
            wire.api.script("open", Answer(hold=hold))
            with connect(wire, channels("session_id=A")) as client:
                client.send(b"hello")
                assert b"hello" == client.exactly(5)
                wire.api.wait(lambda: [(KERNEL, "A", True)] == sessions(wire))
                assert not hold.released
                assert 2 == len([r for r in told(wire) if r.endpoint == "open"])
            wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))
            hold.release()

    @pytest.mark.parametrize("who", ["client", "instance"])
    @pytest.mark.parametrize("how", ["FIN", "reset", "FIN, then reset"])
    def test_210_every_end_is_told_once(self, wire: Wire, who: str, how: str) -> None:
        """Whoever ends it, and however: one open, one close."""
        end = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.accept_websocket()
            if b"last" in request.target or who == "client":
                connection.rest()
                return
            assert end.wait(20)
            if "FIN" in how:
                connection.finish()
                connection.rest() if how == "FIN" else None
            if "reset" in how:
                connection.reset()

        wire.instance.play(script)
        client = connect(wire, channels("session_id=A"))
        wire.api.wait(lambda: [(KERNEL, "A", True)] == sessions(wire))
        end.set()
        if who == "instance":
            client.rest()
            client.sock.close()
        else:
            if "FIN" in how:
                client.finish()
            if "reset" in how:
                client.reset()
            else:
                client.rest()
                client.sock.close()
        wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))
        open_and_close_one_more(wire)
        about = [r.endpoint for r in told(wire) if json.loads(r.body)["sessionId"] == "A"]
        assert ["open", "close"] == about

    def test_210_an_idle_socket_is_ended_and_told(
        self, wire: Wire, tmp_path: Path, instance_port: int
    ) -> None:
        """With `TUNNEL_IDLE_TIMEOUT_S` silence ends a tunnel, and only silence: one open, one close each."""
        wire.instance.play(echo)
        with running_proxy(
            tmp_path, api_url=wire.api.url, routes=production(instance_port), TUNNEL_IDLE_TIMEOUT_S="2"
        ) as wire.proxy:
            with (
                connect(wire, channels("session_id=idle")) as idle,
                connect(wire, channels("session_id=busy")) as busy,
            ):

                def is_idle_ended() -> bool:
                    busy.send(b"hello")
                    assert b"hello" == busy.exactly(5)
                    return (KERNEL, "idle", False) in sessions(wire)

                wire.proxy.wait(is_idle_ended)
                assert idle.closed()
                assert (KERNEL, "busy", True) in sessions(wire)
            wire.api.wait(lambda: not any(active for *_, active in sessions(wire)))
        for name in ("idle", "busy"):
            about = [r.endpoint for r in told(wire) if json.loads(r.body)["sessionId"] == name]
            assert ["open", "close"] == about

    @pytest.mark.parametrize("first", ["the new one opens", "the old one closes"])
    def test_212_213_whoever_comes_back_has_the_same_session(
        self, wire: Wire, tmp_path: Path, instance_port: int, first: str
    ) -> None:
        """Within `SESSION_LINGER_S`, to any worker: nothing is told of it, and the journal has one."""
        wire.instance.play(echo)
        rest = channels("session_id=A")
        with running_proxy(
            tmp_path,
            api_url=wire.api.url,
            routes=production(instance_port),
            SESSION_LINGER_S="600",
            WORKERS="2",
        ) as wire.proxy:
            client = connect(wire, rest)
            wire.api.wait(lambda: sessions(wire))
            for number in range(1, 6):
                if first == "the new one opens":
                    client, old = connect(wire, rest), client
                    old.sock.close()
                else:
                    client.sock.close()
                    ended = number
                    wire.proxy.wait(lambda: ended == len(wire.proxy.records("tunnel")))  # noqa: B023 -- waited for at once
                    client = connect(wire, rest)
            wire.proxy.wait(lambda: 5 == len(wire.proxy.records("tunnel")))
            wire.proxy.wait(lambda: 6 == _connections(wire))
            assert ["open"] == [r.endpoint for r in told(wire)]
            assert [(KERNEL, "A", False)] == journalled(wire)
            client.sock.close()

    def test_213_close_comes_after_the_linger(self, wire: Wire, tmp_path: Path, instance_port: int) -> None:
        """Once, with the true end in the journal."""
        wire.instance.play(echo)
        with running_proxy(
            tmp_path, api_url=wire.api.url, routes=production(instance_port), SESSION_LINGER_S="2"
        ) as wire.proxy:
            with connect(wire, channels("session_id=A")):
                wire.api.wait(lambda: sessions(wire))
            wire.proxy.wait(lambda: wire.proxy.records("tunnel"))
            began = time.monotonic()
            wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))
            # Records of the end travel for a while, too: some milliseconds, or more on a busy machine.
            assert 1.5 < time.monotonic() - began
            wire.proxy.wait(lambda: [True] == [ended for *_, ended in journalled(wire)])
            query = "SELECT instance_id, reason, connections FROM sessions"
            assert [["closed", 1]] == of_the_journal(wire, query)
        assert ["open", "close"] == [r.endpoint for r in told(wire)]

    def test_212_a_restart_ends_no_session_that_comes_back(
        self, wire: Wire, tmp_path: Path, instance_port: int
    ) -> None:
        """The next process waits for its browser, and closes those who do not come."""
        wire.instance.play(echo)
        with running_proxy(
            tmp_path, api_url=wire.api.url, routes=production(instance_port), SESSION_LINGER_S="4"
        ) as proxy:
            wire.proxy = proxy
            back, gone = channels("session_id=A", "back"), channels("session_id=A", "gone")
            with connect(wire, back), connect(wire, gone):
                wire.api.wait(lambda: 2 == len(sessions(wire)))
                assert 0 == proxy.stop()
            assert [True, True] == [active for *_, active in sessions(wire)]
            wire.proxy = proxy.start_again()
            try:
                with connect(wire, back):
                    wire.api.wait(lambda: ("gone", "A", False) in sessions(wire))
                    assert ("back", "A", True) in sessions(wire)
                    assert ["open", "open", "close"] == [r.endpoint for r in told(wire)]
            finally:
                wire.proxy.kill()

    def test_212_two_connections_of_one_session(self, wire: Wire) -> None:
        """A reconnected socket is the same session: close is told when the last has ended."""
        wire.instance.play(echo)
        rest = channels("session_id=B")
        with connect(wire, rest):
            with connect(wire, rest):
                wire.api.wait(lambda: sessions(wire))
            name = wire.path(rest.partition("?")[0])
            wire.proxy.wait(lambda: [r for r in wire.proxy.records("tunnel") if r["path"] == name])
            open_and_close_one_more(wire)
            assert (KERNEL, "B", True) in sessions(wire)
        wire.api.wait(lambda: (KERNEL, "B", False) in sessions(wire))
        about = [r.endpoint for r in told(wire) if json.loads(r.body)["sessionId"] == "B"]
        assert ["open", "close"] == about

    @pytest.mark.parametrize("first", ["the new one opens", "the old one closes"])
    def test_213_a_storm_of_reconnections(self, wire: Wire, first: str) -> None:
        """However old and new connections interleave, VISA ends with what is true."""
        wire.instance.play(echo)
        rest = channels("session_id=storm")
        client = connect(wire, rest)
        for _ in range(100):
            if first == "the new one opens":
                client, old = connect(wire, rest), client
                old.sock.close()
            else:
                client.sock.close()
                client = connect(wire, rest)
        name = wire.path(rest.partition("?")[0])
        wire.proxy.wait(lambda: 100 == len([r for r in wire.proxy.records("tunnel") if r["path"] == name]))
        # In this order: what ends a connection also makes its report pending.
        wire.proxy.wait(lambda: _open_connections(wire) == 1 and not _pending(wire))
        assert [True] == [active for *_, active in sessions(wire) if active]
        client.sock.close()
        wire.proxy.wait(lambda: _open_connections(wire) == 0 and not _pending(wire))
        assert not [active for *_, active in sessions(wire) if active]
        about = [r.endpoint for r in told(wire)]
        assert ["open", "close"] * (len(about) // 2) == about


def _connections(wire: Wire) -> int:
    query = "SELECT sessions.instance_id FROM connections JOIN sessions ON sessions.id = connections.session"
    return len(of_the_journal(wire, query))


def _pending(wire: Wire) -> int:
    query = (
        "SELECT sessions.instance_id FROM reports JOIN sessions ON sessions.id = reports.session "
        "WHERE reports.state = 'pending'"
    )
    return len(of_the_journal(wire, query))


def _open_connections(wire: Wire) -> int:
    query = (
        "SELECT sessions.instance_id FROM connections "
        "JOIN sessions ON sessions.id = connections.session WHERE connections.ended_at IS NULL"
    )
    return len(of_the_journal(wire, query))


class TestKeys:
    """Which session a WebSocket belongs to: as Jupyter reads it itself."""

    @pytest.mark.parametrize(
        ("query", "session"),
        [
            ("session_id=A&x=1", "A"),
            ("x=1&session_id=A", "A"),
            ("xsession_id=B&session_id=A", "A"),
            ("session_id=A&session_id=B", "B"),
            ("session_id=A%2fB%20C", "A/B C"),
            ("session%5fid=A", "A"),
            ("session_id=a+b", "a b"),
            ("session_id=0B3F4F3C", "0B3F4F3C"),
            ("session_id=not-hex!", "not-hex!"),
            ("session_id=%C3%A9", "\u00e9"),
            ("session_id=" + "a" * 150, "a" * 150),
            ("session_id=A;x=1", "A;x=1"),
            ("SESSION_ID=B&session_id=A", "A"),
        ],
    )
    def test_221_spellings_of_a_session(self, wire: Wire, query: str, session: str) -> None:
        """The last `session_id` counts, percent-decoded; nothing is cut or changed."""
        wire.instance.play(echo)
        with connect(wire, channels(query)):
            wire.api.wait(lambda: [(KERNEL, session, True)] == sessions(wire))
        wire.api.wait(lambda: [(KERNEL, session, False)] == sessions(wire))
        assert wire.path(channels(query)).encode() == wire.instance.requests[0].target

    @pytest.mark.parametrize(
        "query",
        ["", "x=1", "session_id", "session_id=", "session_id=%20", "session_id=" + "a" * 151, "SESSION_ID=A"],
        ids=["none", "another", "no value", "empty", "blank", "151 characters", "upper-case name"],
    )
    def test_221_no_session_that_visa_could_keep(self, wire: Wire, query: str) -> None:
        """Journalled and not reported; the socket works like any other."""
        wire.instance.play(echo)
        with connect(wire, channels(query)) as client:
            client.send(b"hello")
            assert b"hello" == client.exactly(5)
            wire.proxy.wait(lambda: journalled(wire))
            assert [(KERNEL, False)] == [(kernel, ended) for kernel, _, ended in journalled(wire)]
        wire.proxy.wait(lambda: [True] == [ended for *_, ended in journalled(wire)])
        open_and_close_one_more(wire)
        assert [("last", "last", False)] == sessions(wire)

    def test_221_a_long_kernel(self, wire: Wire) -> None:
        """The same holds for the kernel's id."""
        wire.instance.play(echo)
        with connect(wire, channels("session_id=A", "k" * 151)):
            wire.proxy.wait(lambda: journalled(wire))
        open_and_close_one_more(wire)
        assert [("last", "last", False)] == sessions(wire)

    @pytest.mark.parametrize(
        "target",
        [
            "/jupyter/{}/terminals/websocket/1?session_id=A",
            "/jupyter/{}/api/kernels/x/other?session_id=A",
            "/jupyter/{}/api/kernels/x/channels/more?session_id=A",
            "/jupyter/{}/api/kernels/channels?session_id=A",
            "/jupyter/{}/lsp/ws/python?session_id=A",
            "/jupyter/{}/api/collaboration/room/1?session_id=A",
            "/ws/print/{}/api/kernels/x/channels?session_id=A",
        ],
    )
    def test_222_other_sockets_are_none(self, wire: Wire, target: str) -> None:
        """Terminals, language servers, printing and the like are tunnels, and no notebook sessions."""
        wire.instance.play(echo)
        with wire.client() as client:
            assert client.ask(upgrade(target.format(wire.number), token=wire.token)).status == 101
            client.send(b"hello")
            assert b"hello" == client.exactly(5)
        open_and_close_one_more(wire)
        assert [("last", "last", False)] == sessions(wire)
        assert [("last", "last", True)] == journalled(wire)

    def test_224_a_token_that_is_refused_once(self, wire: Wire) -> None:
        """One 401 may be transient (contract section 2): the open is tried again with the same token."""
        wire.instance.play(echo)
        wire.api.script("open", Answer(status=401))
        with connect(wire, channels("session_id=A")):
            wire.api.wait(lambda: [(KERNEL, "A", True)] == sessions(wire))
        wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))
        assert [("open", wire.token), ("open", wire.token), ("close", None)] == [
            (r.endpoint, r.token) for r in told(wire)
        ]

    def test_224_a_token_that_has_expired_before_the_open_was_told(self, wire: Wire) -> None:
        """The next one of the same user is used, whatever request brings it; a stranger's is not."""
        wire.instance.play(echo)
        old, new = (jwt(sub=f"user-{wire.number}", n=n) for n in range(2))
        stranger = jwt(sub="stranger")
        for token in (old, stranger):
            wire.api.user(token, f"user-{wire.number}")
        wire.api.down()
        try:
            hold = Hold()
            wire.api.up()
            wire.api.script("open", Answer(hold=hold, status=401))
            wire.token = old
            client = connect(wire, channels("session_id=A"))
            wire.api.wait(lambda: told(wire))
            wire.api.users.pop(old)
            wire.api.user(new, f"user-{wire.number}")
            hold.release()
            for wire.token in (stranger, new):
                assert wire.ask(wire.get()).status == 200
            wire.api.wait(lambda: [(KERNEL, "A", True)] == sessions(wire))
            assert {old, new} == {r.token for r in told(wire)}
            client.sock.close()
        finally:
            wire.api.up()
        wire.api.wait(lambda: [(KERNEL, "A", False)] == sessions(wire))

    def test_224_figures_of_a_session(self, wire: Wire) -> None:
        """Messages and bytes each way; what was done first and last; a ping is nothing that was done."""
        wire.instance.play(echo)
        with connect(wire, channels("session_id=A")) as client:
            for data in (frame(b"hello"), PING, frame(b"x" * 300), PING):
                client.send(data)
                assert data == client.exactly(len(data))
        wire.proxy.wait(lambda: [True] == [ended for *_, ended in journalled(wire)])
        passed = len(frame(b"hello")) + len(frame(b"x" * 300)) + 2 * len(PING)
        query = (
            "SELECT instance_id, bytes_up, bytes_down, messages_up, "
            "opened_at <= first_interaction_at, first_interaction_at <= last_interaction_at, "
            "last_interaction_at <= closed_at FROM sessions"
        )
        assert [[passed, passed, 2, 1, 1, 1]] == of_the_journal(wire, query)
