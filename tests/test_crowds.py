"""Whose first words are taken when: by counting, with clocks that the test moves."""

import math
from collections.abc import Callable
from typing import Final

import pytest

from visa_jupyter_proxy.worker.crowds import LEAST_S, MOST_AT_ONCE, SHARE, Crowd

REQUEST_S: Final = 2**-13
"""An eighth of a millisecond, so that floats add up."""


class Loop:
    """Turns when it is told to; its clock moves with the work."""

    def __init__(self) -> None:
        self.exact = 5.0
        self._next: list[Callable[[], None]] = []
        self.crowd = Crowd(self._next.append, lambda: self.exact)
        self.entered: list[int] = []

    def come(self, number: int) -> None:
        """Have somebody come."""
        self.crowd.enter(lambda: self.enter(number))

    def enter(self, number: int) -> None:
        """Take the time of a request."""
        self.entered.append(number)
        self.exact += REQUEST_S

    def turn(self, others_s: float = 0.0) -> int:
        """Turn once, others first; return how many have entered."""
        before = len(self.entered)
        self.exact += others_s
        called, self._next[:] = [*self._next], []
        for one in called:
            one()
        return len(self.entered) - before

    @property
    def rests(self) -> bool:
        """Whether nothing calls for another turn."""
        return not self._next


def test_few_do_not_wait() -> None:
    """So many in each turn: nobody is queued."""
    loop = Loop()
    for moment in range(10):
        for number in range(MOST_AT_ONCE):
            loop.come(MOST_AT_ONCE * moment + number)
        assert 0 == loop.turn()
    assert loop.rests
    assert [*range(10 * MOST_AT_ONCE)] == loop.entered


def test_a_crowd_enters_in_order_and_leaves_turns_to_others() -> None:
    """A few in each turn, until all are in; those who come later are behind those who wait."""
    loop = Loop()
    for number in range(100 + MOST_AT_ONCE):
        loop.come(number)
    assert MOST_AT_ONCE == len(loop.entered)
    each = []
    while not loop.rests:
        each.append(loop.turn())
        if len(each) == 10:
            loop.come(100 + MOST_AT_ONCE)
    assert [*range(101 + MOST_AT_ONCE)] == loop.entered
    assert {math.ceil(LEAST_S / REQUEST_S)} == set(each[:-1])


def test_a_busy_worker_does_not_forget_them() -> None:
    """However long others take in a turn, who waits gets his part of it."""
    loop = Loop()
    for number in range(4000):
        loop.come(number)
    assert SHARE / REQUEST_S == loop.turn(others_s=1.0)


def test_a_defect_in_one_request_holds_up_nobody() -> None:
    """It is raised to the loop, and the next turn goes on behind it."""
    loop = Loop()
    for number in range(MOST_AT_ONCE):
        loop.come(number)
    loop.crowd.enter(lambda: loop.enter(1 // 0))
    loop.come(MOST_AT_ONCE)
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()
    assert [*range(MOST_AT_ONCE + 1)] == loop.entered
    assert loop.rests
