"""A page that waits asks its own address how it stands (`X-Visa-Poll`)."""

import pytest

from support.client import Message, get, upgrade
from support.instance import Connection, ok, switching
from support.pages import PageText
from support.visa_api import Answer
from wire.conftest import Wire

POLL = "X-Visa-Poll: 1"
NOBODY = "127.0.0.3"
"""An address at which nothing listens."""


def _owned(wire: Wire, **fields: object) -> None:
    wire.api.instance(wire.number, owner=f"user-{wire.number}", **fields)  # type: ignore[arg-type]  # any field


def _poll(wire: Wire, *fields: str) -> Message:
    return wire.ask(wire.get("/lab?token=m4rk3r", POLL, *fields))


def _title(response: Message) -> str:
    return PageText(response.body.decode()).said["title"][0]


class TestGoOn:
    """204: the page may go on."""

    def test_the_instance_answers(self, wire: Wire) -> None:
        """VISA is asked in the way that changes nothing; the instance gets a connection, and no request."""
        response = _poll(wire)
        assert (204, b"", b"no-store") == (response.status, response.body, response.one("cache-control"))
        asked = [request.path for request in wire.api.requests if request.token == wire.token]
        assert [f"/api/account/instances/{wire.number}"] == asked
        assert (0, []) == (wire.api.seen(wire.number), wire.instance.requests)

    def test_the_page_then_uses_the_connection(self, wire: Wire) -> None:
        """One connection in all; the request that follows is a real one."""
        with wire.client() as client:
            assert 204 == client.ask(wire.get("/lab", POLL)).status
            wire.instance.answer(ok())
            assert 200 == client.ask(wire.get("/lab")).status
        assert (1, 1, 1) == (
            wire.api.seen(wire.number),
            wire.instance.connections,
            len(wire.instance.requests),
        )

    def test_pages_that_ask_again_and_again_keep_one_connection(self, wire: Wire) -> None:
        """Each new one would push another instance's out of those that are kept."""
        with wire.client() as client:
            assert {204} == {client.ask(wire.get("/lab", POLL)).status for _ in range(10)}
        assert 1 == wire.instance.connections

    def test_the_state_does_not_matter(self, wire: Wire) -> None:
        """It is a hint: whoever answers is there."""
        _owned(wire, ip=wire.instance.host, state="REBOOTING")
        assert 204 == _poll(wire).status


class TestWait:
    """200: the page shows what comes, and asks again."""

    @pytest.mark.parametrize(
        ("fields", "title"),
        [
            ({"ip": None, "state": "BUILDING"}, "Your instance is being built"),
            ({"ip": NOBODY, "state": "STARTING"}, "Your instance is starting"),
            ({"ip": NOBODY, "state": "STOPPED"}, "Your instance is switched off"),
            ({"ip": NOBODY, "activeProtocols": []}, "JupyterLab is about to start"),
            ({"ip": NOBODY}, "JupyterLab does not answer"),
            ({"ip": "8.8.8.8.8"}, "Your instance cannot be reached"),
        ],
    )
    def test_it_cannot_be_reached(self, wire: Wire, fields: dict[str, object], title: str) -> None:
        """The page says why, and is the one that a person would get; the instance's clock does not move."""
        _owned(wire, **fields)
        response = _poll(wire)
        assert (200, title, b"text/html; charset=utf-8", b"no-store") == (
            response.status,
            _title(response),
            response.one("content-type"),
            response.one("cache-control"),
        )
        assert 0 == wire.api.seen(wire.number)
        assert b"m4rk3r" not in response.head + response.body
        page = wire.ask(wire.get("/lab", "Sec-Fetch-Mode: navigate"))
        assert page.status >= 500
        assert title == _title(page)

    def test_in_the_language_of_the_page(self, wire: Wire) -> None:
        """The browser asks for the same."""
        _owned(wire, ip=None, state="BUILDING")
        response = _poll(wire, "Accept-Language: fr-FR,fr;q=0.9,en;q=0.5")
        assert "Votre instance est en cours de création" == _title(response)

    def test_nobody_is_signed_in(self, wire: Wire) -> None:
        """VISA is not asked; no browser is challenged."""
        before = len(wire.api.requests)
        response = wire.ask(get(wire.path(), POLL))
        assert (200, "You are not signed in") == (response.status, _title(response))
        assert response.one("www-authenticate") is None
        assert before == len(wire.api.requests)

    def test_a_token_that_is_not_accepted(self, wire: Wire) -> None:
        """VISA decides about a poll, too."""
        response = wire.ask(get(wire.path(), POLL, token=f"forged-{wire.number}"))
        assert (200, "You are not signed in any more") == (response.status, _title(response))

    def test_a_member_is_not_the_owner(self, wire: Wire) -> None:
        """The question is answered to any member; the page is only for the owner."""
        wire.api.user(f"guest-{wire.number}", "guest")
        wire.api.member(wire.number, "guest", "GUEST")
        response = wire.ask(get(wire.path(), POLL, token=f"guest-{wire.number}"))
        assert (200, "There is no such instance, or it is not yours") == (response.status, _title(response))

    def test_visa_does_not_answer(self, wire: Wire) -> None:
        """The page says so, and asks again."""
        wire.api.script("account", Answer(500))
        response = _poll(wire)
        assert (200, "VISA does not answer as it should") == (response.status, _title(response))


class TestNoPoll:
    """What only looks like one."""

    def test_another_method(self, wire: Wire) -> None:
        """It goes to the instance."""
        wire.instance.answer(ok())
        assert 200 == wire.ask(wire.get("/x", POLL, "Content-Length: 0", method="POST")).status
        assert [b"POST"] == [request.method for request in wire.instance.requests]

    def test_a_websocket(self, wire: Wire) -> None:
        """Likewise."""

        def script(connection: Connection) -> None:
            connection.send(switching(connection.request_head()))

        wire.instance.play(script)
        assert 101 == wire.ask(upgrade(wire.path(), POLL, token=wire.token)).status

    def test_no_route(self, wire: Wire) -> None:
        """There is nothing to wait for."""
        assert 404 == wire.ask(get("/nope", POLL, token=wire.token)).status
