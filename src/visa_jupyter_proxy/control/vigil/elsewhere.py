"""What other nodes have accepted: looked up in the journal that they share, and told there to them.

A row for each user and instance counts acceptances; it never holds a token. Whether somebody has accepted
one lately is seen by the count that moves, on the observer's own clock: clocks of nodes differ.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import Journal, acceptances
from visa_jupyter_proxy.control.journal.acceptances import Key
from visa_jupyter_proxy.control.journal.errors import JournalError
from visa_jupyter_proxy.control.journal.records import new_id

_MOST_UNTOLD: Final = 20_000
"""Acceptances that wait to be written; each of them is told of again by the next request."""

_KEEP_S: Final = 7 * 86_400.0
"""How long a row is kept: far longer than any grace."""

_TIDY_S: Final = 3600.0

_log: Final = logs.get()


class Elsewhere:
    """One node's view of the others. Users are written as the journal can keep them."""

    def __init__(
        self,
        journal: Journal,
        *,
        every_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`journal` is its own, and closed by it."""
        self._journal = journal
        self.every_s = every_s
        """A key is told of once in so many seconds."""
        self._monotonic = monotonic
        self._wall = wall
        self._id = new_id()
        self._untold: dict[Key, None] = {}
        self._told: OrderedDict[Key, float] = OrderedDict()
        """When each was told of, the oldest first."""
        self._tidied_at: float | None = None
        self._is_failing = False

    def accepted(self, key: Key) -> None:
        """Have the others know, by the next `look`, that a token was accepted here."""
        if key not in self._told and len(self._untold) < _MOST_UNTOLD:
            self._untold[key] = None

    async def look(self, keys: Iterable[Key]) -> Mapping[Key, int] | None:
        """Tell the others what is untold, and see how often they have accepted a token for `keys`.

        None when the journal cannot be used: then nothing is known.
        """
        asked = [*keys]
        self._forget_told()
        is_untidy = self._tidied_at is None or self._monotonic() - self._tidied_at >= _TIDY_S
        if not (asked or self._untold or is_untidy):
            return {}
        try:
            found = await self._exchange(asked, tidy=is_untidy)
        except JournalError as error:
            if not self._is_failing:
                _log.warning("other nodes cannot be asked about access", cause=str(error))
            self._is_failing = True
            return None
        self._is_failing = False
        return found

    async def close(self) -> None:
        """Close the journal."""
        await self._journal.close()

    async def _exchange(self, asked: list[Key], *, tidy: bool) -> Mapping[Key, int]:
        telling = [*self._untold]
        if telling or tidy:
            before = self._wall() - _KEEP_S if tidy else None
            await self._journal.transact(
                partial(
                    acceptances.record, writer=self._id, keys=telling, at=self._wall(), forget_before=before
                )
            )
        now = self._monotonic()
        for key in telling:
            del self._untold[key]
            self._told[key] = now
        self._tidied_at = now if tidy else self._tidied_at
        if not asked:
            return {}
        return await self._journal.read(partial(acceptances.counts, writer=self._id, keys=asked))

    def _forget_told(self) -> None:
        """Let those be told of again whose time has come."""
        before = self._monotonic() - self.every_s
        while self._told:
            key = next(iter(self._told))
            if self._told[key] > before:
                return
            del self._told[key]
