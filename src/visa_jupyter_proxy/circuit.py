"""How hard the VISA API is asked: not at all while it is down, and never faster than it likes.

Workers ask it about instances, control reports to it. Plain code: `now` is a monotonic clock, in seconds.
"""

from collections.abc import Callable, Hashable
from typing import Final

FIRST_DELAY_S: Final = 1.0
LARGEST_DELAY_S: Final = 60.0

_SHORTEST_DELAY_S: Final = 0.25
"""Full jitter may give nothing; an API that is down is left alone for a moment all the same."""

_MOST_FAILING: Final = 5
"""Of what has failed since the last success; Envoy's outlier detection has 5 too. One thing that alone always
fails, for whatever is wrong with it, must not hold up the others."""

PER_SECOND: Final = 100
"""Reports: an API that comes back to ten thousand of them has its users to serve as well."""


def back_off(attempts: int, jitter: float, largest_s: float = LARGEST_DELAY_S) -> float:
    """Give the seconds to wait after so many failures: exponential, with full jitter.

    `jitter` is a random number from 0 to 1: those who failed together shall not come back together.
    """
    return jitter * min(largest_s, FIRST_DELAY_S * 2.0 ** min(attempts - 1, 16))


_ROUNDING: Final = 1e-6
"""What waiting until an attempt may begin can fall short of it by."""


class Circuit[K: Hashable]:
    """Closed, all pass. Open, after several different failures, one probe passes from time to time."""

    def __init__(self, jitter: Callable[[], float], largest_delay_s: float = LARGEST_DELAY_S) -> None:
        """`largest_delay_s` is the longest between two probes: how late one may notice that all is well."""
        self._jitter = jitter
        self._largest_delay_s = largest_delay_s
        self._failing: set[K] = set()
        self._probes = 0
        """Failed probes since it is open; 0 is closed."""
        self._probe_at = 0.0
        self._is_probing = False

    def __repr__(self) -> str:
        return f"Circuit({'open' if self.is_open else 'closed'}, failing={len(self._failing)})"

    @property
    def is_open(self) -> bool:
        """Whether the API counts as down."""
        return self._probes > 0

    @property
    def is_in_doubt(self) -> bool:
        """Whether something has failed since the last success."""
        return bool(self._failing)

    def allows(self, now: float) -> int | None:
        """Say how many attempts may begin; None is any number."""
        if not self.is_open:
            return None
        return int(now >= self._probe_at and not self._is_probing)

    def next_at(self) -> float | None:
        """Say when an attempt may begin; None while a probe is under way."""
        if not self.is_open:
            return 0.0
        return None if self._is_probing else self._probe_at

    def begins(self) -> bool:
        """Take note of an attempt; say whether it is the probe."""
        if not self.is_open:
            return False
        self._is_probing = True
        return True

    def worked(self) -> None:
        """Take note that the API has answered as the contract says, whatever it said."""
        self._failing.clear()
        self._probes = 0
        self._is_probing = False

    def failed(self, what: K, now: float, *, probe: bool) -> None:
        """Take note that an attempt has failed because of the API, or of the way to it.

        The same `what` counts once, however often it fails.
        """
        if not self.is_open:
            self._failing.add(what)
        elif not probe:
            return  # it began before the circuit opened, and says nothing new
        self.broken_off(probe=probe)
        if self.is_open or len(self._failing) >= _MOST_FAILING:
            self._probes += 1
            self._probe_at = now + max(
                _SHORTEST_DELAY_S, back_off(self._probes, self._jitter(), self._largest_delay_s)
            )

    def hurry(self) -> None:
        """Let a probe pass now."""
        self._probe_at = 0.0

    def broken_off(self, *, probe: bool) -> None:
        """Take note that an attempt has come to no end."""
        if probe:
            self._is_probing = False

    def said_nothing(self, now: float, *, probe: bool) -> None:
        """Take note that an attempt has failed and proves nothing: another probe may pass in a moment."""
        if probe:
            self._is_probing = False
            self._probe_at = now + _SHORTEST_DELAY_S


class Pace:
    """So many attempts a second, and as many at once after a rest (a leaky bucket)."""

    def __init__(self, per_second: float = PER_SECOND) -> None:
        self._rate = per_second
        self._left = per_second
        self._at = 0.0

    def allows(self, now: float) -> int:
        """Say how many attempts may begin."""
        self._refill(now)
        return int(self._left + _ROUNDING)

    def next_at(self, now: float) -> float:
        """Say when an attempt may begin."""
        self._refill(now)
        return now + max(0.0, 1.0 - self._left) / self._rate

    def begins(self) -> None:
        """Take note of an attempt."""
        self._left -= 1.0

    def _refill(self, now: float) -> None:
        self._left = min(self._rate, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
