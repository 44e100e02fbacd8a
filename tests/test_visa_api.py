"""The client of the VISA API against a real server that keeps the contract, or breaks it (136, 140, 102)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from support.visa_api import Answer, Hold, VisaApiServer
from visa_jupyter_proxy.errors import (
    InstanceNotFound,
    ProxyError,
    TokenRejected,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)
from visa_jupyter_proxy.visa_api import Access, Instance, VisaApi

_PATIENCE_S = 20.0


@asynccontextmanager
async def _client(
    url: str, *, timeout_s: float = _PATIENCE_S, placeholders: tuple[str, ...] = ()
) -> AsyncIterator[VisaApi]:
    client = VisaApi(url, ca_file=None, timeout_s=timeout_s, placeholders=placeholders)
    try:
        yield client
    finally:
        await client.close()


def _run(
    test: Callable[[VisaApiServer, VisaApi], Awaitable[None]],
    *,
    timeout_s: float = _PATIENCE_S,
    placeholders: tuple[str, ...] = (),
) -> None:
    async def run() -> None:
        async with VisaApiServer() as server:
            server.user("anna-token", "anna")
            server.user("ben-token", "ben")
            server.instance(12, owner="anna", ip="10.0.0.12")
            async with _client(server.url, timeout_s=timeout_s, placeholders=placeholders) as client:
                await test(server, client)

    asyncio.run(run())


async def _refused(error: type[ProxyError], call: Awaitable[object]) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value)


def _shown(**fields: object) -> bytes:
    return json.dumps({"data": {"id": 12, "ipAddress": "10.0.0.12", "state": "ACTIVE"} | fields}).encode()


class TestConnections:
    """What is open to the API at the moment."""

    def test_they_are_counted(self) -> None:
        """One for each question under way; kept for the next ones, and closed with the client."""

        async def test(_server: VisaApiServer, client: VisaApi) -> None:
            counts = [client.connections]
            questions = [client.get_instance("anna-token", 12) for _ in range(3)]
            await asyncio.gather(*questions)
            await client.get_instance("anna-token", 12)
            counts.append(client.connections)
            await client.close()
            counts.append(client.connections)
            assert [0, 3, 0] == counts

        _run(test)


class TestAccess:
    """What is asked when nothing may change by it."""

    def test_a_member_gets_the_role(self) -> None:
        """One question, and `lastSeenAt` does not move."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.instance(12, owner="anna", ip=None, state="BUILDING", activeProtocols=[])
            server.member(12, "ben", "GUEST")
            answers = [await client.get_access(token, 12) for token in ("anna-token", "ben-token")]
            assert [
                Access(role="OWNER", host=None, state="BUILDING"),
                Access(role="GUEST", host=None, state="BUILDING"),
            ] == answers
            assert ([False, False], 0) == ([one.is_up for one in answers], server.seen(12))
            assert {"/api/account/instances/12"} == {request.path for request in server.requests}

        _run(test)

    def test_others_get_nothing(self) -> None:
        """404 for whom it is nothing to, 401 for a token that is not accepted."""

        async def test(_server: VisaApiServer, client: VisaApi) -> None:
            await _refused(InstanceNotFound, client.get_access("ben-token", 12))
            await _refused(TokenRejected, client.get_access("forged", 12))

        _run(test)

    @pytest.mark.parametrize(
        ("fields", "access"),
        [
            ({}, Access(role=None, host="10.0.0.12", state="ACTIVE")),
            ({"membership": None}, Access(role=None, host="10.0.0.12", state="ACTIVE")),
            ({"membership": {"role": None}}, Access(role=None, host="10.0.0.12", state="ACTIVE")),
            (
                {
                    "membership": {"role": "OWNER"},
                    "state": None,
                    "ipAddress": "",
                    "activeProtocols": ["JUPYTER"],
                },
                Access(role="OWNER", host=None, state="UNKNOWN", jupyter_answers=True),
            ),
        ],
    )
    def test_what_may_be_missing(self, fields: dict[str, object], access: Access) -> None:
        """No role is nobody's."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.script("account", Answer(200, body=_shown(**fields)))
            assert access == await client.get_access("anna-token", 12)

        _run(test)


class TestInstances:
    """What is asked, and what is kept of the answer."""

    def test_the_owner_gets_the_instance(self) -> None:
        """One question, with exactly the token that came, and `lastSeenAt` moves."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            instance = await client.get_instance("anna-token", 12)
            expected = Instance(
                id=12, host="10.0.0.12", state="ACTIVE", owner="anna", jupyter_answers=True, values={}
            )
            assert (expected, True, 1) == (instance, instance.is_up, server.seen(12))
            (request,) = server.requests
            assert ("GET", "/api/jupyter/instances/12", "anna-token") == (
                request.method,
                request.path,
                request.token,
            )

        _run(test)

    def test_others_do_not(self) -> None:
        """404 for everyone else and for what does not exist, 401 for a token that is not accepted."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.member(12, "ben", "SUPPORT")
            await _refused(InstanceNotFound, client.get_instance("ben-token", 12))
            await _refused(InstanceNotFound, client.get_instance("anna-token", 13))
            await _refused(TokenRejected, client.get_instance("forged", 12))
            assert 0 == server.seen(12)

        _run(test)

    def test_101_the_id_is_asked_for_exactly(self) -> None:
        """Also where a float could not hold it."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            number = 2**53 + 1
            server.instance(number, owner="anna")
            assert number == (await client.get_instance("anna-token", number)).id
            assert f"/api/jupyter/instances/{number}" == server.requests[0].path

        _run(test)

    def test_only_what_a_route_names_is_kept(self) -> None:
        """The rest of the answer may be secret; what is kept is not shown."""

        async def test(_: VisaApiServer, client: VisaApi) -> None:
            instance = await client.get_instance("anna-token", 12)
            assert {"computeId": "compute-secret-12", "owner": "anna", "id": "12"} == instance.values
            assert "secret" not in repr(instance)
            assert "10.0.0.12" not in repr(instance)

        _run(test, placeholders=("computeId", "owner", "id"))

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"ipAddress": None}, (None, "ACTIVE", None)),
            ({"ipAddress": ""}, (None, "ACTIVE", None)),
            ({"state": None, "members": None}, ("10.0.0.12", "UNKNOWN", None)),
            ({"state": "NEW_ONE", "members": []}, ("10.0.0.12", "NEW_ONE", None)),
            (
                {"members": [{"role": "USER", "user": {"id": "b"}}, {"role": "OWNER", "user": {"id": 7}}]},
                ("10.0.0.12", "ACTIVE", "7"),
            ),
            ({"members": [{"role": "OWNER", "user": None}, {}]}, ("10.0.0.12", "ACTIVE", None)),
            ({"unknown": {"deep": [1, 2]}}, ("10.0.0.12", "ACTIVE", None)),
        ],
    )
    def test_what_may_be_missing(self, fields: dict[str, object], expected: tuple[object, ...]) -> None:
        """And what may be there besides."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.script("instance", Answer(status=200, body=_shown(**fields)))
            instance = await client.get_instance("anna-token", 12)
            assert expected == (instance.host, instance.state, instance.owner)

        _run(test)

    @pytest.mark.parametrize(
        ("state", "is_up"),
        [("ACTIVE", True), ("PARTIALLY_ACTIVE", True), ("ACTIVE_MIGRATING", True)]
        + [
            (state, False)
            for state in ("BUILDING", "STARTING", "STOPPED", "MIGRATING", "DELETED", "UNKNOWN", "")
        ],
    )
    def test_which_states_are_up(self, state: str, *, is_up: bool) -> None:
        """Contract section 2."""
        assert is_up == Instance(id=1, host=None, state=state, owner=None, values={}).is_up


class TestBadAnswers:
    """Fail closed, whatever comes (case 136)."""

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (Answer(status=500), VisaInvalid),
            (Answer(status=503), VisaInvalid),
            (Answer(status=204, body=b""), VisaInvalid),
            (Answer(status=201, body=_shown()), VisaInvalid),
            (Answer(status=401, body=_shown()), TokenRejected),
            (Answer(status=403), InstanceNotFound),
            (Answer(status=404), InstanceNotFound),
            (Answer(status=400), VisaInvalid),
            (Answer(reset=True), VisaUnreachable),
            (Answer(raw=b""), VisaUnreachable),
            (Answer(raw=b"nonsense\r\n\r\n"), VisaInvalid),
            (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), VisaInvalid),
            (Answer(raw=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"), VisaInvalid),
            *(
                (Answer(status=200, body=body), VisaInvalid)
                for body in (b"", b"null", b"{", b"[]", b"{}", b'{"data": null}', b'{"data": []}', b"<html>")
            ),
            *(
                (Answer(status=200, body=body), VisaInvalid)
                for body in (b'{"data": {}}', b'{"data": {"id": "12"}}', b'{"data": {"id": 1.5}}', b"\xff")
            ),
            (Answer(status=200, body=_shown(ipAddress=7)), VisaInvalid),
            (Answer(status=200, body=_shown(members={"a": 1})), VisaInvalid),
            (Answer(status=200, body=b'{"data": ' + b"[" * 100_000), VisaInvalid),
            (Answer(status=200, body=b" " * (2**20 + 1)), VisaInvalid),
            (Answer(status=200, body=_shown(id=13)), VisaInvalid),
        ],
        ids=lambda value: repr(value)[:70] if isinstance(value, Answer) else "",
    )
    def test_136_102_an_answer_that_is_none(self, answer: Answer, error: type[ProxyError]) -> None:
        """Nothing of it is in the error; the next good answer counts."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.always("instance", answer)  # aiohttp may ask a second time after a reset: it is a GET
            text = await _refused(error, client.get_instance("anna-token", 12))
            server.always("instance", None)
            assert not any(part in text for part in ("10.0.0.12", "anna", "html", "nonsense"))
            assert 12 == (await client.get_instance("anna-token", 12)).id

        _run(test)

    def test_136_nobody_answers(self) -> None:
        """Refused connections are told from silence; both end."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            server.down()
            await _refused(VisaUnreachable, client.get_instance("anna-token", 12))
            server.up()
            assert 12 == (await client.get_instance("anna-token", 12)).id

        _run(test)

    def test_136_silence_ends(self) -> None:
        """After `timeout_s` in all."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            hold = Hold()
            server.script("instance", Answer(hold=hold))
            await _refused(VisaTimeout, client.get_instance("anna-token", 12))
            hold.release()

        _run(test, timeout_s=0.2)

    def test_136_a_body_without_end_is_left(self) -> None:
        """At the bound, not at the end of a gigabyte."""
        sent = 0

        async def endless(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" " * 65536)
                sent += 65536

        async def run() -> None:
            runner = web.ServerRunner(web.Server(endless))
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            async with _client(f"http://127.0.0.1:{port}") as client:
                await _refused(VisaInvalid, client.get_instance("T", 12))
            await runner.cleanup()

        asyncio.run(run())
        assert sent < 64 * 2**20  # what the buffers between the two may hold, and far less than all

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_136_a_redirect_is_not_followed(self, status: int) -> None:
        """The token would go where it says."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            async with VisaApiServer() as evil:
                evil.instance(12, owner="anna")
                place = f"{evil.url}/jupyter/instances/12"
                head = f"HTTP/1.1 {status} X\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
                server.script("instance", Answer(raw=head.encode()))
                await _refused(VisaInvalid, client.get_instance("anna-token", 12))
                assert [] == evil.requests

        _run(test)

    def test_cookies_are_not_kept(self) -> None:
        """One user's would go along with another's questions."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            body = _shown()
            head = b"HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=1; Path=/\r\nContent-Length: %d\r\n\r\n" % len(
                body
            )
            server.script("instance", Answer(raw=head + body))
            await client.get_instance("anna-token", 12)
            await client.get_instance("anna-token", 12)
            assert [None, None] == [request.headers.get("Cookie") for request in server.requests]

        _run(test)

    def test_140_the_environment_diverts_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Neither proxies nor .netrc count."""
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            assert 12 == (await client.get_instance("anna-token", 12)).id
            assert "anna-token" == server.requests[0].token

        _run(test)


class TestReports:
    """224: the wire contract of notebook sessions."""

    def test_224_open_and_close(self) -> None:
        """Open with the user's token, close without; both ids in JSON, whatever is in them."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            kernel, session = "k-1", 's"é\n'
            await client.open_notebook("anna-token", 12, kernel, session)
            assert [(12, kernel, session)] == server.active()
            await client.close_notebook(12, kernel, session)
            assert [] == server.active()
            opened, closed = server.requests
            assert ("POST", "/api/jupyter/instances/12/notebook/open", "anna-token") == (
                opened.method,
                opened.path,
                opened.token,
            )
            assert ("POST", "/api/jupyter/instances/12/notebook/close", None) == (
                closed.method,
                closed.path,
                closed.headers.get("Authorization"),
            )
            for request in (opened, closed):
                assert {"kernelId": kernel, "sessionId": session} == json.loads(request.body)
                assert "application/json" == request.headers["Content-Type"]

        _run(test)

    def test_224_refusals_and_failures(self) -> None:
        """Told apart, so that a report knows whether to wait for another token."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            await _refused(TokenRejected, client.open_notebook("old", 12, "k", "s"))
            await _refused(InstanceNotFound, client.open_notebook("ben-token", 12, "k", "s"))
            server.script("close", Answer(status=500), Answer(reset=True))
            await _refused(VisaInvalid, client.close_notebook(12, "k", "s"))
            await _refused(VisaUnreachable, client.close_notebook(12, "k", "s"))
            await client.close_notebook(12, "k", "s")

        _run(test)

    def test_a_call_that_is_given_up_leaves_nothing_behind(self) -> None:
        """Its connection is closed, and the next call is served."""

        async def test(server: VisaApiServer, client: VisaApi) -> None:
            hold = Hold()
            server.script("instance", Answer(hold=hold))
            call = asyncio.create_task(client.get_instance("anna-token", 12))
            await server.until(lambda: server.requests)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert 12 == (await client.get_instance("anna-token", 12)).id
            hold.release()

        _run(test)
