"""The records that wait to be written: a queue with a bound."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from visa_jupyter_proxy.control.journal.records import Ended, Opened, Progressed, Record, Settled

LARGEST: Final = 100_000
"""Records kept while the store cannot be written: some 50 MB, days of notebook sessions at a facility."""


class Backlog:
    """Records in the order of their making. Nothing here waits or fails."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._records: deque[Record] = deque()
        self.dropped = 0
        """How many records were given up so far because there were too many."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def add(self, record: Record) -> list[Record]:
        """Append; return the older records that had to go for it."""
        self._records.append(record)
        return self._shrink()

    def take(self, most: int) -> list[Record]:
        """Take the oldest records out, in order."""
        return [self._records.popleft() for _ in range(min(most, len(self._records)))]

    def put_back(self, records: list[Record]) -> list[Record]:
        """Put what was taken back to the front; return the records that had to go."""
        self._records.extendleft(reversed(records))
        return self._shrink()

    def _shrink(self) -> list[Record]:
        """Drop what later records say again; then the oldest connections that are over.

        Then the oldest news of reports that are settled: they are made once more. Then the oldest.
        """
        excess = len(self._records) - self._largest
        if excess <= 0:
            return []
        gone = self._drop(lambda record: isinstance(record, Progressed) and record.left_at is None)
        if len(self._records) > self._largest:
            # An eighth at once, so that a full backlog is not searched again for every record.
            wanted = excess + self._largest // 8
            over = self._oldest_finished(wanted)
            gone += self._drop(lambda record: not isinstance(record, Settled) and record.connection in over)
            settled = self._oldest_settled(wanted - len(gone))
            gone += self._drop(lambda record: isinstance(record, Settled) and record.report in settled)
        while len(self._records) > self._largest:
            gone.append(self._records.popleft())
        self.dropped += len(gone)
        return gone

    def _drop(self, is_gone: Callable[[Record], bool]) -> list[Record]:
        gone = [record for record in self._records if is_gone(record)]
        self._records = deque(record for record in self._records if not is_gone(record))
        return gone

    def _oldest_finished(self, records: int) -> set[str]:
        begun = {record.connection for record in self._records if isinstance(record, Opened)}
        gone: set[str] = set()
        for record in self._records:
            if 2 * len(gone) >= records:
                break
            if isinstance(record, Ended) and record.connection in begun:
                gone.add(record.connection)
        return gone

    def _oldest_settled(self, records: int) -> set[str]:
        settled = (record.report for record in self._records if isinstance(record, Settled))
        return {*islice(settled, max(0, records))}
