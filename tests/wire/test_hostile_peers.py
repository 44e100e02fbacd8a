"""What no case says, and somebody on either side may try."""

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.client import RawClient, get, upgrade
from support.instance import Connection, switching
from support.proxy import running_proxy
from wire.conftest import Wire, production


class TestAfterAnError:
    """A connection whose request has failed, and that was not closed, is as good as new."""

    @pytest.mark.parametrize("why", ["not-yours", "unreachable"])
    def test_a_request_with_a_body_that_came_before_the_answer(self, wire: Wire, why: str) -> None:
        """The body had to wait for an answer or a connection that never came; the next request has not."""
        number = wire.number if why == "unreachable" else 10**9
        failing = get(f"/jupyter/{number}/x", "Content-Length: 5", method="POST", token=wire.token) + b"hello"
        with wire.client() as client:
            if why == "unreachable":
                wire.instance.refuse()
            response = client.ask(failing)
            assert (502 if why == "unreachable" else 404) == response.status
            assert None is response.one("connection")
            if why == "unreachable":
                wire.instance.listen()
            assert 200 == client.ask(wire.get()).status


def test_an_instance_that_cannot_be_told_who_it_is_is_not_connected_to(wire: Wire) -> None:
    """Else each such request leaves a connection behind that nobody uses, for a second or two."""
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=wire.instance.host, computeId=None)
    for _ in range(3):
        assert 503 == wire.ask(get(f"/visafs/{wire.number}/x", token=wire.token)).status
    assert 0 == wire.instance.connections


def test_a_client_that_resets_just_when_its_websocket_opens(tmp_path: Path, wire: Wire) -> None:
    """It is counted out once: twice would let its address have more connections than it may."""
    go, sent = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        request = connection.request_head()
        assert go.wait(20)
        connection.send(switching(request))
        sent.set()
        connection.rest()

    wire.instance.play(script)
    routes = production(wire.instance.port)
    limit = {"MAX_CONNECTIONS_PER_ADDRESS": "2"}
    with running_proxy(tmp_path, api_url=wire.api.url, routes=routes, **limit) as proxy, ExitStack() as stack:
        stack.enter_context(RawClient(proxy.port))
        client = stack.enter_context(RawClient(proxy.port))
        client.send(upgrade(wire.path("/ws"), token=wire.token))
        wire.instance.wait(lambda: wire.instance.requests)
        # The proxy finds both at once: first the instance's 101, then the client's reset.
        os.kill(proxy.worker_pid, signal.SIGSTOP)
        go.set()
        assert sent.wait(20)
        client.reset()
        os.kill(proxy.worker_pid, signal.SIGCONT)
        proxy.wait(lambda: proxy.records("tunnel") and _is_admitted(stack, proxy.port))
        assert not _is_admitted(stack, proxy.port)


def _is_admitted(stack: ExitStack, port: int) -> bool:
    """Connect, and find out whether the proxy listens; the connection stays open then."""
    client = stack.enter_context(RawClient(port))
    client.send_in_pieces(get("/nowhere"), 1000)
    return client.more()
