"""Who is alive and who is dead, by the observer's own clock."""

import pytest

from visa_jupyter_proxy.control.owners import Watch, heartbeat_s


def watched(watch: Watch, beats: dict[str, int], *times: float) -> list[tuple[str, int]]:
    """Look at the same counters at these times; what the last look gives."""
    dead: list[tuple[str, int]] = []
    for now in times:
        dead = watch.observe(beats, now)
    return dead


class TestWatch:
    """Time-out 15 s; whoever looks does so every 3 s."""

    def test_a_counter_that_stands_still_for_the_time_out_is_dead(self) -> None:
        """Counted from when it was first seen so."""
        watch = Watch(15)
        assert [] == watched(watch, {"a": 4, "b": 9}, 100, 103, 106, 109)
        assert [] == watched(watch, {"a": 4, "b": 10}, 112, 114.9)
        assert [("a", 4)] == watched(watch, {"a": 4, "b": 10}, 115)
        assert [("a", 4), ("b", 10)] == watched(watch, {"a": 4, "b": 10}, 118, 121, 124, 127)

    def test_a_counter_that_moves_in_either_direction_is_alive(self) -> None:
        """A database that was restored has smaller ones."""
        watch = Watch(15)
        assert [] == watched(watch, {"a": 4}, 0, 3, 6, 9, 12)
        assert [] == watched(watch, {"a": 3}, 15, 18, 21, 24, 27)
        assert [("a", 3)] == watched(watch, {"a": 3}, 30)

    def test_nobody_is_dead_for_having_been_silent_while_nobody_could_look(self) -> None:
        """A store that was away kept the others from beating, too: they get the whole time again."""
        watch = Watch(15)
        assert [] == watched(watch, {"a": 4}, 0, 3, 6)
        assert [] == watched(watch, {"a": 4}, 3606, 3609, 3612, 3615, 3618)
        assert [("a", 4)] == watched(watch, {"a": 4}, 3621)

    def test_who_has_stopped_meanwhile_is_forgotten(self) -> None:
        """And starts anew if it comes back."""
        watch = Watch(15)
        assert [] == watched(watch, {"a": 4}, 0, 3, 6, 9, 12)
        assert [] == watched(watch, {}, 15)
        assert [] == watched(watch, {"a": 4}, 18)

    def test_what_was_seen_can_be_forgotten(self) -> None:
        """By an observer that stood still itself."""
        watch = Watch(15)
        assert [] == watched(watch, {"a": 4}, 0, 3, 6, 9, 12)
        watch.reset()
        assert [] == watched(watch, {"a": 4}, 15)


@pytest.mark.parametrize(("timeout_s", "expected"), [(15, 3), (3600, 3), (10, 2), (2, 0.4)])
def test_several_heartbeats_fit_into_the_time_out(timeout_s: float, expected: float) -> None:
    """Also into a short one; a long one does not slow them down."""
    assert expected == heartbeat_s(timeout_s)
