"""Who is alive: an owner whose heartbeat moves. Plain code: `now` is the observer's monotonic clock."""

from collections.abc import Mapping


class Watch:
    """Watches the heartbeat counters of the other owners.

    Only the observer's own monotonic clock counts: neither a clock that somebody sets nor a process id
    that was used again can kill an owner. So a dead one is noticed `timeout_s` after it was first seen
    to stand still, also by a process that has just started.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._seen: dict[str, tuple[int, float]] = {}

    def observe(self, beats: Mapping[str, int], now: float) -> list[tuple[str, int]]:
        """Note the counters of all owners that have not stopped; give the dead, each with its counter."""
        self._seen = {
            owner: seen if (seen := self._seen.get(owner)) and seen[0] == count else (count, now)
            for owner, count in beats.items()
        }
        return [(owner, count) for owner, (count, at) in self._seen.items() if now - at >= self._timeout_s]

    def reset(self) -> None:
        """Forget what was seen: this observer may have stood still itself."""
        self._seen.clear()
