"""The other control processes on the journal: those that are dead, and those that have stopped."""

from collections.abc import Callable, Mapping
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.owners import Watch

_log: Final = logs.get()


class Neighbours:
    """Ends what others have left, when nobody has come back for it.

    Every call raises what `Journal` raises. Times in seconds, on this process's own monotonic clock.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        timeout_s: float,
        linger_s: float,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Whose heartbeat stands still for `timeout_s` is dead.

        The connections of one that has stopped in order carry their sessions on for `linger_s`.
        """
        self._journal = journal
        self._linger_s = linger_s
        self._monotonic = monotonic
        self._wall = wall
        self._watch = Watch(timeout_s)
        self._stopped: dict[str, float] = {}
        """Owners that have stopped and left connections, and since when that is known here."""

    async def look(self, me: str, beats: Mapping[str, int]) -> None:
        """Bury the dead, and clear after those that have stopped; `beats` are the others' heartbeats."""
        for owner, count in self._watch.observe(beats, self._monotonic()):
            ended = await self._journal.bury(owner, count, me, self._wall())
            if ended is not None:
                _log.warning("another control process is dead", owner=owner, connections_ended=ended)
        left = await self._journal.left(me)
        now = self._monotonic()
        self._stopped = {owner: self._stopped.get(owner, now) for owner in left}
        for owner, since in self._stopped.items():
            if now - since >= self._linger_s:
                await self._journal.clear(owner, me, self._wall())
