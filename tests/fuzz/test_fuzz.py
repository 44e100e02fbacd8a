"""A short run of the fuzzer, with a fixed seed: `make fuzz` runs longer, with another one each time."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from fuzz.campaign import fuzz
from fuzz.mutation import Stock, cut
from fuzz.peers import chance
from fuzz.seeds import ANSWERS, REQUESTS, WORDS


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_206_mutations_of_everything(tmp_path: Path) -> None:
    """No traceback, no lost task, no hang, no descriptor or memory left behind, and all others are served."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = int(sock.getsockname()[1])
    outcome = fuzz(tmp_path, port, seed="206", seconds=15)
    assert [] == outcome.problems, f"see {tmp_path}; {outcome}"
    # It was no run against a closed door: what is good, bad and refused was all there.
    assert {101, 200, 400, 401, 404, 431, 502} <= set(outcome.statuses), outcome
    assert outcome.seen_by_instance > 100


@pytest.mark.parametrize("seeds", [REQUESTS, ANSWERS], ids=["requests", "answers"])
def test_206_a_seed_can_be_repeated(seeds: Sequence[bytes]) -> None:
    """The same seed gives the same messages in the same segments, another one gives others."""
    stock = Stock(seeds, WORDS)

    def messages(seed: str) -> list[list[bytes]]:
        made = []
        for number in range(50):
            random = chance(seed, "client", number)
            made.append(cut(random, stock.message(random)))
        return made

    assert messages("a") == messages("a") != messages("b")
    assert [b"".join(pieces) for pieces in messages("a")] == [
        stock.message(chance("a", "client", number)) for number in range(50)
    ]
