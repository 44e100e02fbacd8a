"""What no case says, and somebody on either side may try."""

import pytest

from support.client import get
from wire.conftest import Wire


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
