"""Request smuggling: every family of `support.smuggling`, at an instance that records every byte."""

import itertools
import threading

import pytest

from support.instance import Connection, ok
from support.smuggling import (
    FAMILIES,
    FIELD,
    MUTATIONS,
    READINGS,
    SMUGGLED,
    STRICT,
    Direction,
    Mutation,
    attack,
    requests,
)
from wire.conftest import Wire


class Recorder:
    """What came on each connection of an instance; complete requests are answered."""

    def __init__(self) -> None:
        self.connections: list[bytearray] = []
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> None:
        """Be the script of an instance."""
        seen, answered = bytearray(), 0
        with self._lock:
            self.connections.append(seen)
        while connection.more():
            seen += connection.buffer
            connection.buffer = b""
            complete = len(requests(bytes(seen), STRICT)[0])
            connection.send(ok() * (complete - answered))
            answered = complete

    def heads(self) -> int:
        """How many requests there are, by the reading that finds most of them."""
        return sum(max(len(requests(bytes(seen), how)[0]) for how in READINGS) for seen in self.connections)


def test_44_there_are_enough_mutations() -> None:
    """At least 250 that differ; and the attacks are some: one reading finds one request, another more."""
    assert len(set(MUTATIONS)) >= 250
    assert {*FAMILIES, "place"} == {mutation.family for mutation in MUTATIONS}
    plain = Mutation("plain", FIELD + b"\r\n")
    directions: tuple[Direction, ...] = ("CL.TE", "TE.CL")
    for direction in directions:
        found = [len(requests(attack(plain, direction, "/x", "X: y"), how)[0]) for how in READINGS]
        assert (1, True) == (min(found), max(found) > 1)


@pytest.mark.parametrize("direction", ["CL.TE", "TE.CL"])
@pytest.mark.parametrize("family", [*FAMILIES, "place"])
def test_44_no_mutation_smuggles(wire: Wire, family: str, direction: Direction) -> None:
    """Each is answered although nothing more comes, and the instance sees one request of it, or none.

    Whichever way the instance reads: nothing that could be taken for a second head reaches it.
    """
    recorder = Recorder()
    wire.instance.play(recorder)
    cookie = f"Cookie: access_token={wire.token}"
    for number, mutation in enumerate(one for one in MUTATIONS if one.family == family):
        before = recorder.heads()
        with wire.client() as client:
            client.send(attack(mutation, direction, wire.path(f"/{number}"), cookie))
            first = client.response()
            client.finish()
            client.rest()
        served = 1 if first.status == 200 else 0
        assert first.status in (200, 400, 414, 417, 431, 501, 505), mutation
        assert before + served == recorder.heads(), mutation


def test_44_the_plain_attack_is_refused(wire: Wire) -> None:
    """Both framings, in either order, with any length, are refused and never forwarded (RFC 9112 6.1)."""
    for length, first in itertools.product((0, 3, 5, 1000), (True, False)):
        fields = [f"Content-Length: {length}", "Transfer-Encoding: chunked"]
        data = wire.get("/x", *(fields if first else reversed(fields)), method="POST")
        with wire.client() as client:
            response = client.ask(data + b"0\r\n\r\n" + SMUGGLED)
            assert (400, b"close") == (response.status, response.one("connection"))
            assert client.closed()
    assert 0 == wire.instance.connections
