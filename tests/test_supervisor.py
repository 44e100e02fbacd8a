"""How limits are divided, and how long a worker that ends again and again has to wait."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_jupyter_proxy.control.supervisor import Backoff, divided
from visa_jupyter_proxy.mailbox import Start
from visa_jupyter_proxy.settings import PREFIX, load


def _start(most: int) -> Start:
    settings, _ = load({PREFIX + "MAX_CONNECTIONS": str(most)}, Path("/nowhere"))
    return Start(settings=settings.for_worker(), routes=(), pages={})


class TestDivided:
    """What each worker gets of `MAX_CONNECTIONS`."""

    @given(st.integers(1, 64), st.integers(0, 10_000))
    def test_the_parts_add_up(self, workers: int, more: int) -> None:
        """None gets nothing, which would mean no limit; no part is larger than another by two."""
        parts = [start.settings.max_connections for start in divided(_start(workers + more), workers)]
        assert (workers, workers + more) == (len(parts), sum(parts))
        assert min(parts) >= max(1, max(parts) - 1)

    def test_no_limit_is_none_for_each(self) -> None:
        """Each has the file descriptors of a process of its own."""
        assert [0, 0, 0] == [start.settings.max_connections for start in divided(_start(0), 3)]

    def test_each_knows_its_place(self) -> None:
        """Its number, and how many there are."""
        assert [(0, 2), (1, 2)] == [(start.place, start.places) for start in divided(_start(0), 2)]


class TestBackoff:
    """Exponential, with full jitter."""

    @pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
    def test_a_random_part_of_a_time_that_doubles(self, part: float) -> None:
        """From a tenth of a second to ten seconds, and from anew when it went well."""
        backoff = Backoff(jitter=lambda: part)
        limits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
        assert [part * limit for limit in limits] == pytest.approx([backoff.next() for _ in limits])
        backoff.reset()
        assert part * 0.1 == pytest.approx(backoff.next())

    def test_two_do_not_keep_step(self) -> None:
        """By default the part is random."""
        one, other = Backoff(), Backoff()
        assert [one.next() for _ in range(8)] != [other.next() for _ in range(8)]
