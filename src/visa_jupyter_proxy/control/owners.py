"""Who is alive: an owner whose heartbeat moves. Plain code: `now` is the observer's monotonic clock."""

import math
from collections.abc import Mapping
from typing import Final

_LARGEST_HEARTBEAT_S: Final = 3.0

_BEATS: Final = 5
"""Heartbeats within the time-out: four may be late before an owner is taken for dead."""


def heartbeat_s(timeout_s: float) -> float:
    """Give the seconds between two heartbeats."""
    return min(_LARGEST_HEARTBEAT_S, timeout_s / _BEATS)


class Watch:
    """Watches the heartbeat counters of the other owners.

    Only the observer's own monotonic clock counts: neither a clock that somebody sets or that differs
    from node to node, nor a process id that was used again, can kill an owner. So a dead one is noticed
    `timeout_s` after it was first seen to stand still, also by a process that has just started.

    Nobody is dead for having been silent while the observer could not look: whatever kept it from that
    (the store was away, or the process suspended) may have kept the others from beating.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # As long as all the others may be silent before, and take to come back after.
        self._longest_gap_s = timeout_s / 3
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at = -math.inf

    def observe(self, beats: Mapping[str, int], now: float) -> list[tuple[str, int]]:
        """Note the counters of all owners that have not stopped; give the dead, each with its counter."""
        if now - self._looked_at > self._longest_gap_s:
            self._seen.clear()
        self._looked_at = now
        self._seen = {
            owner: seen if (seen := self._seen.get(owner)) and seen[0] == count else (count, now)
            for owner, count in beats.items()
        }
        return [(owner, count) for owner, (count, at) in self._seen.items() if now - at >= self._timeout_s]

    def reset(self) -> None:
        """Forget what was seen: this observer may have stood still itself."""
        self._seen.clear()
