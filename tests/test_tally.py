"""The memory that workers share: what each writes, all see, and what is left of one that is gone."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from visa_jupyter_proxy.tally import STALE_S, Place, Tally


@contextmanager
def _places(count: int) -> Iterator[tuple[Tally, list[Place]]]:
    """Map the same memory once for control and once for each worker, as processes do."""
    tally = Tally.create(count)
    maps = [Tally(os.dup(tally.descriptor), count) for _ in range(count)]
    places = [Place(one, number) for number, one in enumerate(maps)]
    yield tally, places
    for place in places:
        del place._words
    for one in (*maps, tally):
        one.close()


class TestFewest:
    """Who takes the next connection."""

    def test_whoever_has_fewest(self) -> None:
        """And all who have as few."""
        with _places(3) as (_, (one, two, three)):
            for place, clients in ((one, 4), (two, 2), (three, 2)):
                place.publish(clients)
                place.seen(100.5)
            assert [False, True, True] == [place.has_fewest(100.0) for place in (one, two, three)]

    def test_a_worker_that_does_not_accept_does_not_count(self) -> None:
        """Because it is full, or has not begun, or is gone."""
        with _places(3) as (tally, (one, two, three)):
            one.publish(5)
            one.seen(100.0)
            assert one.has_fewest(100.0)
            two.publish(1)
            two.seen(100.0)
            assert not one.has_fewest(100.0)
            two.away()
            assert one.has_fewest(100.0)
            three.publish(1)
            three.seen(100.0)
            assert not one.has_fewest(100.0)
            tally.clear(2)
            assert one.has_fewest(100.0)

    def test_a_worker_that_stands_still_does_not_count(self) -> None:
        """Three seconds after it was last seen."""
        with _places(2) as (_, (one, two)):
            one.publish(5)
            two.seen(100.0)
            assert not one.has_fewest(100.0 + STALE_S)
            assert one.has_fewest(100.0 + STALE_S + 0.1)


class TestAddresses:
    """Connections of an address, wherever they are."""

    def test_all_workers_count_together(self) -> None:
        """Each of them sees the sum."""
        with _places(2) as (_, (one, two)):
            assert [1, 2, 3] == [one.enter("10.0.0.1"), two.enter("10.0.0.1"), one.enter("10.0.0.1")]
            assert 1 == two.enter("fd00::1")
            one.leave("10.0.0.1")
            assert 3 == two.enter("10.0.0.1")

    def test_those_of_a_worker_that_is_gone_do_not_count(self) -> None:
        """Nor does its successor begin with them."""
        with _places(2) as (tally, (one, two)):
            for _ in range(3):
                one.enter("10.0.0.1")
            two.enter("10.0.0.1")
            tally.clear(0)
            assert 2 == one.enter("10.0.0.1")

    @given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from("abcd")), max_size=60))
    def test_any_coming_and_going(self, steps: list[tuple[int, bool, str]]) -> None:
        """A few addresses are counted exactly."""
        with _places(3) as (_, places):
            there: Counter[tuple[int, str]] = Counter()
            for number, enters, address in steps:
                if enters:
                    there[number, address] += 1
                    expected = sum(there[other, address] for other in range(3))
                    assert expected == places[number].enter(address)
                elif there[number, address]:
                    there[number, address] -= 1
                    places[number].leave(address)

    def test_thousands_of_addresses(self) -> None:
        """None is counted too low; too high is not one in a thousand."""
        with _places(2) as (_, places):
            wrong = 0
            for number in range(2000):
                address = f"10.0.{number // 250}.{number % 250}"
                counts = [places[random.randrange(2)].enter(address) for _ in range(2)]
                assert (True, True) == (counts[0] >= 1, counts[1] >= 2)
                wrong += counts[1] > 2
            assert wrong <= 2
