"""The VISA API is away (case 137), with short periods: grants live 0.2 s, and go on for 1.5 s without it."""

import time
from collections.abc import Iterator
from typing import Final

import pytest

from support.client import Message, RawClient, get, upgrade
from support.instance import Connection, ok, switching
from support.proxy import RunningProxy, running_proxy
from support.visa_api import Answer, Hold, VisaApiServer
from wire.conftest import Wire, production

_REFRESH_S: Final = 0.2
_STALE_S: Final = 1.5

_CLOCK_S: Final = 0.01
"""The loop's clock counts milliseconds."""


def _serve(connection: Connection) -> None:
    while (request := connection.request()).one("upgrade") is None:
        connection.send(ok())
    connection.send(switching(request))


@pytest.fixture(scope="module")
def calm(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy with such periods."""
    with running_proxy(
        tmp_path_factory.mktemp("calm"),
        api_url=api.url,
        routes=production(instance_port),
        CACHE_REFRESH_TIME_S=str(_REFRESH_S),
        CACHE_STALE_IF_ERROR_S=str(_STALE_S),
        API_TIMEOUT_S="1",
    ) as running:
        yield running


@pytest.fixture
def away(wire: Wire, calm: RunningProxy) -> Iterator[Wire]:
    """Give a user of that proxy; the API is back afterwards, and known to be."""
    yield Wire(calm, wire.api, wire.instance, wire.number, wire.token)
    wire.api.up()
    wire.api.always("instance", None)
    wire.instance.wait(lambda: _ask(calm, get(wire.path(), token=wire.token)).status != 503)


def _ask(proxy: RunningProxy, data: bytes) -> Message:
    with RawClient(proxy.port) as client:
        return client.ask(data)


def _until_it_is_over(away: Wire, granted_at: float) -> Message:
    """Ask until somebody is refused; all before were served, and the last of them in time."""
    while True:
        sent = time.monotonic()
        response = away.ask(away.get())
        if response.status != 200:
            break
        assert sent <= granted_at + _REFRESH_S + _STALE_S + _CLOCK_S
    return response


class TestAway:
    """What users see of an API that is away."""

    def test_137_work_goes_on_then_503_then_all_is_well(self, away: Wire) -> None:
        """HTTP and WebSockets, for the time that is set; then a page that says so; then by itself."""
        away.instance.play(_serve)
        began = time.monotonic()
        assert 200 == away.ask(away.get()).status
        granted_at = time.monotonic()
        away.api.down()
        assert 101 == away.ask(upgrade(away.path(), token=away.token)).status
        refused = _until_it_is_over(away, granted_at)
        assert time.monotonic() >= began + _REFRESH_S + _STALE_S - _CLOCK_S
        assert (503, True, b"5") == (
            refused.status,
            b"visa_unreachable" in refused.body,
            refused.one("retry-after"),
        )
        page = away.ask(away.get("/lab", "Sec-Fetch-Mode: navigate"))
        assert (503, True) == (page.status, b"VISA cannot be reached" in page.body)
        away.api.up()
        away.instance.wait(lambda: away.ask(away.get()).status == 200)

    def test_137_nonsense_is_502_in_the_end(self, away: Wire) -> None:
        """A 5xx is no answer either, and the grant goes on; then it is told apart."""
        assert 200 == away.ask(away.get()).status
        granted_at = time.monotonic()
        away.api.always("instance", Answer(503))
        refused = _until_it_is_over(away, granted_at)
        assert (502, True) == (refused.status, b"visa_invalid" in refused.body)

    def test_137_a_refusal_is_the_last_word(self, away: Wire) -> None:
        """Somebody who has lost the instance does not get it back because the API goes away."""
        assert 200 == away.ask(away.get()).status
        away.api.instance(away.number, owner="somebody-else", ip=away.instance.host)
        away.instance.wait(lambda: away.ask(away.get()).status == 404)
        away.api.down()
        answers = set()
        while 503 not in answers:
            answers.add(away.ask(away.get()).status)
        assert {404, 503} >= answers

    def test_137_an_api_that_hangs_holds_up_few(self, away: Wire) -> None:
        """504 for the first ones; then 503 at once, but for a probe now and then, the only questions."""
        assert 200 == away.ask(away.get()).status
        hold = Hold()
        away.api.always("instance", Answer(hold=hold))
        try:
            first = [away.client() for _ in range(5)]
            for number, client in enumerate(first):
                request = get(away.path(), f"X-Forwarded-For: 10.0.0.{number}", token=f"stranger{number}")
                client.send(request)
            assert [504] * 5 == [client.response().status for client in first]
            for client in first:
                client.sock.close()
            before = len(away.api.asked("instance"))
            statuses = [
                away.ask(get(away.path(), token=f"stranger{number}")).status for number in range(5, 105)
            ]
            assert {503} <= set(statuses) <= {503, 504}
            assert statuses.count(504) == len(away.api.asked("instance")) - before
            assert statuses.count(504) < 50
        finally:
            hold.release()
