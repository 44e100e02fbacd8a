"""The demo's stand-in VISA against contract section 2, line by line, and the parts it starts."""

import asyncio
import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from visa_jupyter_proxy.demo.accounts import ADA, EMMY, Tokens, User
from visa_jupyter_proxy.demo.pages import Pages
from visa_jupyter_proxy.demo.parts import Part, PartFailed, first, free_port
from visa_jupyter_proxy.demo.visa import Instance, Visa

PROXY = "http://127.0.0.1:8088"
KEY = {"kernelId": "k-1", "sessionId": "s-1"}
OPEN = "/api/jupyter/instances/1/notebook/open"
CLOSE = "/api/jupyter/instances/1/notebook/close"

BOB = User("bob", "10900", "Bob", "Stranger")


class Clock:
    """Unix time that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time


class Talk:
    """A stand-in VISA on a real socket, and somebody who asks it."""

    server: TestServer
    session: aiohttp.ClientSession

    def __init__(self) -> None:
        self.clock = Clock()
        self.tokens = Tokens((ADA, EMMY, BOB), now=self.clock)
        self.one = Instance(1, "Ice", "ACTIVE", "127.0.0.2", {ADA: "OWNER"}, expiration_date=1_700_000_500.0)
        self.two = Instance(2, "Invariants", "ACTIVE", "127.0.0.3", {EMMY: "OWNER", ADA: "USER"})
        self.three = Instance(3, "Reflectometry", "BUILDING", None, {ADA: "OWNER"})
        self.visa = Visa(self.tokens, [self.one, self.two, self.three], now=self.clock)

    async def ask(
        self, method: str, path: str, token: str | None = None, body: object = None, **options: Any
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Send one request; the token goes as Bearer."""
        fields = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.session.request(
            method, self.server.make_url(path), headers=fields, json=body, **options
        ) as response:
            return response, await response.read()

    async def data(self, path: str, user: User) -> Any:
        """Return `data` of an answer that must be 200."""
        response, body = await self.ask("GET", path, self.tokens.sign(user))
        assert 200 == response.status
        return json.loads(body)["data"]

    async def status(self, method: str, path: str, user: User | None, body: object = None) -> int:
        """Return the status of an answer."""
        response, _ = await self.ask(method, path, self.tokens.sign(user) if user else None, body)
        return response.status


def talking(conversation: Callable[[Talk], Coroutine[Any, Any, None]]) -> Talk:
    """Run a conversation with a fresh stand-in; return it for a look at what it recorded."""

    async def run() -> Talk:
        talk = Talk()
        talk.server = TestServer(Pages(talk.visa, (ADA, EMMY), PROXY).application())
        async with talk.server, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as talk.session:
            await conversation(talk)
        return talk

    return asyncio.run(run())


def sent_by(talk: Talk) -> list[tuple[str, str | None]]:
    """Return key and end of each recorded notebook session."""
    return [(row.key.session_id, row.closed_by) for row in talk.visa.notebooks]


class TestJupyterCall:
    """GET /api/jupyter/instances/{id}."""

    def test_the_owner_gets_the_instance_in_data(self) -> None:
        """The owner is answered 200 with all fields that the contract names."""

        async def conversation(talk: Talk) -> None:
            data = await talk.data("/api/jupyter/instances/1", ADA)
            assert (1, "127.0.0.2", "ACTIVE") == (data["id"], data["ipAddress"], data["state"])
            expected = {"uid", "computeId", "name", "activeProtocols", "members", "terminationDate"}
            assert set() == (expected | {"expirationDate", "deleteRequested"}) - set(data)
            assert [("OWNER", "10815")] == [(m["role"], m["user"]["id"]) for m in data["members"]]

        talking(conversation)

    @pytest.mark.parametrize("user", [EMMY, BOB])
    def test_nobody_else_gets_it(self, user: User) -> None:
        """Everyone else is answered 404: strangers and admins alike."""
        assert "ADMIN" in EMMY.roles

        async def conversation(talk: Talk) -> None:
            assert 404 == await talk.status("GET", "/api/jupyter/instances/1", user)

        assert talking(conversation).one.last_seen_at is None

    def test_a_member_who_is_not_the_owner_gets_404(self) -> None:
        """Membership is not enough."""

        async def conversation(talk: Talk) -> None:
            assert 404 == await talk.status("GET", "/api/jupyter/instances/2", ADA)

        talking(conversation)

    def test_no_such_instance(self) -> None:
        """An instance that does not exist is answered 404."""

        async def conversation(talk: Talk) -> None:
            assert 404 == await talk.status("GET", "/api/jupyter/instances/99", ADA)

        talking(conversation)

    def test_it_moves_the_inactivity_clock(self) -> None:
        """The call sets `lastSeenAt` and cancels a pending expiry."""

        async def conversation(talk: Talk) -> None:
            await talk.data("/api/jupyter/instances/1", ADA)

        talk = talking(conversation)
        assert (talk.clock.time, None) == (talk.one.last_seen_at, talk.one.expiration_date)

    def test_an_instance_that_is_being_built_has_no_address(self) -> None:
        """`ipAddress` is null while BUILDING."""

        async def conversation(talk: Talk) -> None:
            data = await talk.data("/api/jupyter/instances/3", ADA)
            assert ("BUILDING", None, []) == (data["state"], data["ipAddress"], data["activeProtocols"])

        talking(conversation)


class TestAccountCall:
    """GET /api/account/instances/{id}."""

    @pytest.mark.parametrize(
        ("instance_id", "user", "role"),
        [(1, ADA, "OWNER"), (2, ADA, "USER"), (1, EMMY, "SUPPORT"), (2, EMMY, "OWNER")],
    )
    def test_members_and_support_see_their_role(self, instance_id: int, user: User, role: str) -> None:
        """Any member, and support staff, get the instance and their role."""

        async def conversation(talk: Talk) -> None:
            data = await talk.data(f"/api/account/instances/{instance_id}", user)
            assert (instance_id, role) == (data["id"], data["membership"]["role"])

        talking(conversation)

    def test_a_stranger_gets_404(self) -> None:
        """Who is neither member nor staff sees nothing."""

        async def conversation(talk: Talk) -> None:
            assert 404 == await talk.status("GET", "/api/account/instances/1", BOB)

        talking(conversation)

    def test_it_has_no_side_effect(self) -> None:
        """Neither `lastSeenAt` nor a pending expiry is touched."""

        async def conversation(talk: Talk) -> None:
            await talk.data("/api/account/instances/1", ADA)

        talk = talking(conversation)
        assert (None, 1_700_000_500.0) == (talk.one.last_seen_at, talk.one.expiration_date)


def _other_signature(token: str) -> str:
    head, payload, signature = token.split(".")
    return f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _other_claims(token: str) -> str:
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"sub": ADA.sub}).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


def _no_algorithm(token: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


class TestTokens:
    """Who is let in at all."""

    @pytest.mark.parametrize(
        "path", ["/api/jupyter/instances/1", "/api/account/instances/1", "/api/jupyter/instances/99"]
    )
    @pytest.mark.parametrize("token", [None, "x", "a.b.c", "a.b", ".."])
    def test_401_has_no_body_and_names_the_scheme(self, path: str, token: str | None) -> None:
        """Without a valid token the answer is 401, empty, with `WWW-Authenticate: Bearer`."""

        async def conversation(talk: Talk) -> None:
            response, body = await talk.ask("GET", path, token)
            assert (401, b"") == (response.status, body)
            assert "Bearer" == response.headers["WWW-Authenticate"]

        talking(conversation)

    @pytest.mark.parametrize("forge", [_other_signature, _other_claims, _no_algorithm])
    def test_a_forged_token_is_none(self, forge: Callable[[str], str]) -> None:
        """A token with another signature, other claims or another algorithm is not accepted."""
        tokens = Tokens()
        token = tokens.sign(EMMY)
        assert EMMY == tokens.verify(token)
        assert tokens.verify(forge(token)) is None

    def test_another_server_s_token_is_none(self) -> None:
        """A token that somebody else has signed is not accepted."""
        assert Tokens().verify(Tokens().sign(ADA)) is None

    def test_a_token_expires(self) -> None:
        """At `exp` the token is worth nothing any more."""
        clock = Clock()
        tokens = Tokens(now=clock)
        token = tokens.sign(ADA, lifetime_s=300)
        clock.time += 299
        assert ADA == tokens.verify(token)
        clock.time += 1
        assert tokens.verify(token) is None

    def test_a_token_has_a_real_size(self) -> None:
        """Tokens are as large as those of an identity provider, and no two are the same."""
        tokens = Tokens()
        one, other = tokens.sign(ADA), tokens.sign(ADA)
        assert one != other
        assert 1000 < len(one) < 2000


class TestNotebookCalls:
    """POST notebook/open and notebook/close."""

    def test_open_then_close(self) -> None:
        """A session has one row, with its user and both times."""

        async def conversation(talk: Talk) -> None:
            assert 200 == await talk.status("POST", OPEN, ADA, KEY)
            talk.clock.time += 60
            assert 200 == await talk.status("POST", CLOSE, None, KEY)

        talk = talking(conversation)
        (row,) = talk.visa.notebooks
        assert (ADA, "k-1", "s-1") == (row.user, row.key.kernel_id, row.key.session_id)
        assert (talk.clock.time - 60, talk.clock.time, "close") == (
            row.opened_at,
            row.closed_at,
            row.closed_by,
        )

    def test_open_needs_a_token(self) -> None:
        """Without one it is 401, and nothing is recorded."""

        async def conversation(talk: Talk) -> None:
            assert 401 == await talk.status("POST", OPEN, None, KEY)

        assert [] == sent_by(talking(conversation))

    def test_open_retires_older_rows_of_the_same_key(self) -> None:
        """A second open ends the first row and inserts one; rows of other keys stay as they are."""
        other = {"kernelId": "k-1", "sessionId": "s-2"}

        async def conversation(talk: Talk) -> None:
            for body in (KEY, other, KEY):
                assert 200 == await talk.status("POST", OPEN, ADA, body)

        assert [("s-1", "open"), ("s-2", None), ("s-1", None)] == sent_by(talking(conversation))

    @pytest.mark.parametrize("body", [KEY, {"kernelId": "k" * 151, "sessionId": "s"}])
    @pytest.mark.parametrize("instance_id", [1, 99])
    def test_close_of_what_is_not_open_is_fine(self, instance_id: int, body: object) -> None:
        """Close is answered 200 although nothing matched."""

        async def conversation(talk: Talk) -> None:
            path = f"/api/jupyter/instances/{instance_id}/notebook/close"
            assert 200 == await talk.status("POST", path, None, body)

        assert [] == sent_by(talking(conversation))

    def test_close_is_idempotent(self) -> None:
        """A second close changes nothing, the time of the first one included."""

        async def conversation(talk: Talk) -> None:
            await talk.status("POST", OPEN, ADA, KEY)
            await talk.status("POST", CLOSE, None, KEY)
            talk.clock.time += 60
            assert 200 == await talk.status("POST", CLOSE, None, KEY)

        talk = talking(conversation)
        assert [talk.clock.time - 60] == [row.closed_at for row in talk.visa.notebooks]

    @pytest.mark.parametrize(("length", "status"), [(150, 200), (151, 400)])
    @pytest.mark.parametrize("name", ["kernelId", "sessionId"])
    def test_ids_have_at_most_150_characters(self, name: str, length: int, status: int) -> None:
        """One character more is refused and not recorded."""

        async def conversation(talk: Talk) -> None:
            assert status == await talk.status("POST", OPEN, ADA, KEY | {name: "x" * length})

        assert (1 if status == 200 else 0) == len(talking(conversation).visa.notebooks)

    @pytest.mark.parametrize("body", [None, [], {}, {"kernelId": "k"}, "text"])
    def test_a_body_of_another_shape_is_refused(self, body: object) -> None:
        """The stand-in says so instead of recording something odd."""

        async def conversation(talk: Talk) -> None:
            assert 400 == await talk.status("POST", OPEN, ADA, body)

        assert [] == sent_by(talking(conversation))


class TestPages:
    """The stand-in for VISA Web."""

    def test_sign_in_sets_the_cookie_as_visa_web_does(self) -> None:
        """The cookie has VISA's name, path and SameSite, JavaScript can read it, and the page moves on."""

        async def conversation(talk: Talk) -> None:
            response, _ = await talk.ask("GET", "/sign-in?user=ada&next=/jupyter/1/lab")
            cookie = response.cookies["access_token"]
            assert ("/", "Strict", "", "") == (
                cookie["path"],
                cookie["samesite"],
                cookie["httponly"],
                cookie["secure"],
            )
            assert ADA == talk.tokens.verify(cookie.value)
            assert f"0; url={PROXY}/jupyter/1/lab" == response.headers["Refresh"]

        talking(conversation)

    @pytest.mark.parametrize("target", ["jupyter/1/lab", "", "@elsewhere.test/", "/a\tb"])
    def test_sign_in_leads_to_the_proxy_only(self, target: str) -> None:
        """What is no path is refused."""

        async def conversation(talk: Talk) -> None:
            response, _ = await talk.ask("GET", "/sign-in", params={"user": "ada", "next": target})
            assert 400 == response.status

        talking(conversation)

    def test_a_token_of_a_shorter_life(self) -> None:
        """To see them rotate; what is no number of seconds is refused."""

        async def conversation(talk: Talk) -> None:
            response, _ = await talk.ask("GET", "/sign-in?user=ada&lifetime=5")
            token = response.cookies["access_token"].value
            assert ADA == talk.tokens.verify(token)
            talk.clock.time += 5
            assert talk.tokens.verify(token) is None
            response, _ = await talk.ask("GET", "/sign-in?user=ada&lifetime=-5")
            assert 400 == response.status

        talking(conversation)

    def test_an_instance_can_be_given_away(self) -> None:
        """To see what becomes of its owner, who is a member from then on."""

        async def conversation(talk: Talk) -> None:
            response, _ = await talk.ask("POST", "/give?instance=1&user=emmy")
            assert 200 == response.status
            path = "/api/jupyter/instances/1"
            assert [404, 200] == [await talk.status("GET", path, user) for user in (ADA, EMMY)]
            account = await talk.data("/api/account/instances/1", ADA)
            assert "USER" == account["membership"]["role"]
            for query in ("instance=9&user=emmy", "instance=x&user=emmy", "instance=1&user=nobody"):
                assert 404 == await talk.status("POST", f"/give?{query}", None)
            _, page = await talk.ask("GET", "/")
            assert b"Give to Ada" in page

        talking(conversation)

    def test_an_unknown_user_is_told_who_there_is(self) -> None:
        """The answer names the users."""

        async def conversation(talk: Talk) -> None:
            response, body = await talk.ask("GET", "/sign-in?user=nobody")
            assert (404, True) == (response.status, b"ada, emmy" in body)

        talking(conversation)

    def test_sign_out_removes_the_cookie(self) -> None:
        """The cookie is set to expire."""

        async def conversation(talk: Talk) -> None:
            response, _ = await talk.ask("GET", "/sign-out")
            assert ("", "0") == (
                response.cookies["access_token"].value,
                response.cookies["access_token"]["max-age"],
            )

        talking(conversation)

    def test_the_start_page_shows_instances_and_notebook_sessions(self) -> None:
        """Every instance has a link that signs its owner in; what reports say is shown as text."""

        async def conversation(talk: Talk) -> None:
            await talk.status("POST", OPEN, ADA, {"kernelId": "<b>", "sessionId": "s"})
            _, body = await talk.ask("GET", "/")
            page = body.decode()
            links = [f"/sign-in?user={who}&amp;next=/jupyter/{n}/lab" for who, n in (("ada", 1), ("emmy", 2))]
            assert [True, True] == [link in page for link in links]
            assert ("&lt;b&gt;" in page, "<b>" in page) == (True, False)

        talking(conversation)

    def test_sessions_and_calls_are_shown_without_tokens(self) -> None:
        """A call is recorded with its status and the digest of its token, which is shown nowhere."""

        async def conversation(talk: Talk) -> None:
            token = talk.tokens.sign(ADA)
            await talk.ask("POST", OPEN, token, KEY)
            await talk.ask("GET", "/api/jupyter/instances/1", "forged")
            _, sessions = await talk.ask("GET", "/sessions")
            _, calls = await talk.ask("GET", "/calls")
            assert [("ada", "k-1", None)] == [
                (row["user"], row["kernelId"], row["closedAt"]) for row in json.loads(sessions)
            ]
            assert [
                (OPEN, 200, hashlib.sha256(token.encode()).hexdigest()),
                ("/api/jupyter/instances/1", 401, hashlib.sha256(b"forged").hexdigest()),
            ] == [(call["path"], call["status"], call["tokenSha256"]) for call in json.loads(calls)]
            assert token.encode() not in calls + sessions

        talking(conversation)


def _part(tmp_path: Path, program: str) -> Part:
    return Part(
        "The part", [sys.executable, "-c", program], cwd=tmp_path, env=os.environ, log=tmp_path / "part.log"
    )


class TestParts:
    """Programs that are started, waited for and ended."""

    def test_a_part_that_ends_at_once_shows_its_output(self, tmp_path: Path) -> None:
        """Waiting for its answer fails with the status and the end of its output."""

        async def run() -> None:
            part = _part(tmp_path, "import sys; sys.exit('no such colour')")
            await part.start()
            await part.answers("http://127.0.0.1:1/")

        with pytest.raises(PartFailed, match=r"(?s)has ended with status 1.*no such colour"):
            asyncio.run(run())

    def test_a_program_that_is_not_there(self, tmp_path: Path) -> None:
        """It cannot be started, and the text says which."""
        part = Part("The part", ["/nowhere/x"], cwd=tmp_path, env={}, log=tmp_path / "log")
        with pytest.raises(PartFailed, match=r"The part could not be started.*/nowhere/x"):
            asyncio.run(part.start())

    def test_it_waits_until_the_part_answers(self, tmp_path: Path) -> None:
        """`answers` returns when the port is served, and `stop` ends the program and frees the port."""
        port = free_port(0, ["127.0.0.1"])
        program = (
            "from http.server import BaseHTTPRequestHandler, HTTPServer;"
            f"HTTPServer(('127.0.0.1', {port}), BaseHTTPRequestHandler).serve_forever()"
        )

        async def run() -> None:
            part = _part(tmp_path, program)
            await part.start()
            await part.answers(f"http://127.0.0.1:{port}/")
            await part.stop()

        asyncio.run(run())
        assert port == free_port(port, ["127.0.0.1"])

    def test_stop_kills_what_does_not_listen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that ignores SIGTERM is killed at the deadline, and stop returns."""
        monkeypatch.setattr("visa_jupyter_proxy.demo.parts.STOP_S", 0.05)
        ready = tmp_path / "ready"
        os.mkfifo(ready)
        program = (
            "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            f"pathlib.Path({str(ready)!r}).write_text('');"
            "signal.pause(); signal.pause()"
        )

        async def run() -> None:
            part = _part(tmp_path, program)
            await part.start()
            await asyncio.to_thread(ready.read_bytes)
            await part.stop()
            with pytest.raises(PartFailed, match="status -9"):
                await part.watch()

        asyncio.run(run())

    def test_the_first_to_end_decides(self) -> None:
        """What the first raises is raised, and the others are cancelled before that."""
        seen: list[str] = []

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        async def fails() -> None:
            raise PartFailed("first")

        with pytest.raises(PartFailed, match="first"):
            asyncio.run(first(forever(), fails()))
        assert ["cancelled"] == seen


def test_orphans_are_killed() -> None:
    """A grandchild in a session of its own, whose parent has ended, does not survive; older children do."""
    grandchild = "import os, signal; print(os.getpid(), flush=True); os.close(1); signal.pause()"
    child = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True, stdout=-1);"
        "print(p.stdout.readline().decode(), flush=True)"
    )
    program = f"""
import subprocess, sys
from visa_jupyter_proxy.demo.parts import Orphans

older = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
orphans = Orphans()
orphans.adopt()
child = subprocess.run([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, check=True)
print(int(child.stdout))
orphans.kill()
older.communicate(b"\\n")
print(older.returncode)
"""
    output = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout
    orphan, status_of_older = map(int, output.split())
    assert 0 == status_of_older
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)


class TestFreePort:
    """Which port is taken."""

    def test_a_free_one_is_taken_as_wished(self) -> None:
        """The wish is granted."""
        port = free_port(0, ["127.0.0.1"])
        assert port == free_port(port, ["127.0.0.1"])

    def test_a_busy_one_is_replaced(self) -> None:
        """When the port is in use on any of the hosts, one that is free on all is chosen."""
        with socket.socket() as busy:
            busy.bind(("127.0.0.3", 0))
            busy.listen()
            wanted = busy.getsockname()[1]
            port = free_port(wanted, ["127.0.0.2", "127.0.0.3"])
        assert port not in (0, wanted)

    def test_none_at_all(self) -> None:
        """Addresses that are not this machine's have no free port."""
        with pytest.raises(OSError, match=r"no port is free on all of 192\.0\.2\.1"):
            free_port(0, ["192.0.2.1"])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--port", "99999"), 2, "less than or equal to 65535"),
        (("--api-port", "-1"), 2, "greater than or equal to 0"),
        (("--set", "RECHECK_S"), 2, "write NAME=VALUE"),
        (("--set", "=5"), 2, "is no setting. Is "),
        (("--set", "RECHEK_S=5"), 2, "RECHEK_S is no setting. Is RECHECK_S meant?"),
        (("--port", "0", "--api-port", "0", "--logs", "/dev/null"), 1, "cannot be a directory for logs: "),
    ],
)
def test_an_option_that_makes_no_sense(words: tuple[str, ...], status: int, said: str) -> None:
    """Nothing is started, and it is said what to write: a setting that is none would be without effect."""
    done = subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", "demo", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
    )
    assert (status, True) == (done.returncode, said in done.stderr), done.stderr
    assert "Traceback" not in done.stderr
