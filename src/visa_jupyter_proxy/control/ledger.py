"""Which connections carry notebook sessions in this process. Plain code: no loop, no clock, no store.

A connection carries its session from its 101 on, and for the linger after it is over: its browser may
come back with the same ids, to this process or to another one. Whoever comes back here takes over at
once, so a session has connections, or one that lingers, never both.

`now` is a monotonic clock, `at` is Unix time; both in seconds.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from msgspec import structs

from visa_jupyter_proxy.control.journal.records import (
    Ended,
    Opened,
    Progressed,
    Record,
    is_reportable,
    new_id,
)
from visa_jupyter_proxy.identifiers import storable
from visa_jupyter_proxy.mailbox import NotebookKey, Traffic, TunnelEnded, TunnelOpened, TunnelProgressed


@dataclass(slots=True, eq=False)
class _Connection:
    id: str
    worker: int
    tunnel: int
    key: NotebookKey
    user: str
    opened_at: float
    token: str
    traffic: Traffic | None = None
    """As it was heard of last."""
    left_at: float | None = None
    """When it was over."""
    reason: str = ""
    lapses: float = 0.0
    """When it ceases to carry its session, once it is over."""

    def __repr__(self) -> str:
        return f"_Connection({self.id}, worker={self.worker}, tunnel={self.tunnel})"


class Ledger:
    """The connections of all workers of this process, and the records that their changes make."""

    def __init__(self, linger_s: float = 0.0) -> None:
        """`linger_s` is how long a connection that is over carries its session on."""
        self._linger_s = linger_s
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._carried: dict[NotebookKey, dict[_Connection, None]] = {}
        """In the order of their opening; one session may have thousands, and they end in any order."""
        # A dict whose first ones go steps over all that have gone, whenever it is asked for its first.
        self._lingering: OrderedDict[NotebookKey, _Connection] = OrderedDict()
        """In the order of their lapsing."""

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def lingering(self) -> int:
        """How many sessions have no connection, and may come back."""
        return len(self._lingering)

    # --- what happens ---------------------------------------------------------------------------

    def opened(self, worker: int, message: TunnelOpened) -> list[Record] | None:
        """Enter a connection; None when it is there already."""
        if (worker, message.tunnel) in self._connections:
            return None
        key = _storable_key(message.notebook)
        carriers = self._carried.setdefault(key, {})
        connection = _Connection(
            id=new_id(),
            worker=worker,
            tunnel=message.tunnel,
            key=key,
            user=message.user,
            opened_at=message.at,
            token=message.token,
        )
        left = self._lingering.pop(key, None)
        records: list[Record] = [_opened(connection, first=not carriers and left is None)]
        if left is not None:
            records.append(_ended(left, last=False))
        carriers[connection] = None
        self._connections[worker, message.tunnel] = connection
        return records

    def progressed(self, worker: int, message: TunnelProgressed) -> Progressed | None:
        """Note what has passed through a connection; None when there is none."""
        connection = self._connections.get((worker, message.tunnel))
        if connection is None:
            return None
        connection.traffic = message.traffic
        return _progressed(connection)

    def ended(self, worker: int, message: TunnelEnded, now: float) -> Record | None:
        """Strike a connection out; None when there is none."""
        connection = self._connections.get((worker, message.tunnel))
        if connection is None:
            return None
        connection.traffic = message.traffic
        return self._strike(connection, message.reason, message.at, now)

    def lost(self, worker: int | None, reason: str, at: float, now: float) -> list[Record]:
        """Strike out all connections of one worker, or of all (None), as far as they are known."""
        over = [one for (number, _), one in self._connections.items() if worker in (None, number)]
        return [self._strike(connection, reason, at, now) for connection in over]

    def lapsed(self, now: float) -> list[Record]:
        """End what has lingered for long enough."""
        over = []
        for connection in self._lingering.values():
            if connection.lapses > now:
                break
            over.append(connection)
        for connection in over:
            del self._lingering[connection.key]
        return [_ended(connection, last=True) for connection in over]

    def next_lapse(self) -> float | None:
        """Say when there is something to end; None when nothing lingers."""
        return next((connection.lapses for connection in self._lingering.values()), None)

    # --- what is known --------------------------------------------------------------------------

    def traffic(self, worker: int, tunnel: int) -> Traffic | None:
        """Give what was heard last of what has passed through an open connection."""
        connection = self._connections.get((worker, tunnel))
        return None if connection is None else connection.traffic

    def token(self, key: NotebookKey) -> str | None:
        """Give the newest token with which a connection of this session was opened."""
        carriers = self._carried.get(key)
        newest = next(reversed(carriers)) if carriers else self._lingering.get(key)
        return None if newest is None else newest.token

    def declare(self, *, but: Collection[str], anew: bool) -> list[Record]:
        """Make the records of all connections that carry a session again, except those in `but`.

        `anew`: the journal has ended them and closed their sessions, so these are new connections and
        sessions, to be reported; what lingers is over. Otherwise it has only lost them, and nothing is
        to be reported.
        """
        if anew:
            for key in [key for key, one in self._lingering.items() if one.id not in but]:
                del self._lingering[key]
        records: list[Record] = []
        for carriers in [*map(list, self._carried.values()), *([one] for one in self._lingering.values())]:
            declared = [connection for connection in carriers if connection.id not in but]
            for connection in declared:
                if anew:
                    connection.id = new_id()
                record = _opened(connection, first=anew and connection is carriers[0])
                if not anew:
                    record.report, record.released = None, True
                records.append(record)
        return records

    def _strike(self, connection: _Connection, reason: str, at: float, now: float) -> Record:
        key = connection.key
        del self._connections[connection.worker, connection.tunnel]
        carriers = self._carried[key]
        del carriers[connection]
        # Clocks are set back; a connection that ends before it begins helps nobody.
        connection.left_at, connection.reason = max(at, connection.opened_at), storable(reason)
        if carriers:
            return _ended(connection, last=False)
        del self._carried[key]
        if not self._linger_s:
            return _ended(connection, last=True)
        connection.lapses = now + self._linger_s
        self._lingering[key] = connection
        return _progressed(connection)


def _opened(connection: _Connection, *, first: bool) -> Opened:
    return Opened(
        connection=connection.id,
        worker=connection.worker,
        tunnel=connection.tunnel,
        key=connection.key,
        user=connection.user,
        token=connection.token,
        at=connection.opened_at,
        session=new_id(),
        report=new_id() if is_reportable(connection.key) else None,
        first=first,
    )


def _progressed(connection: _Connection) -> Progressed:
    return Progressed(
        connection=connection.id,
        traffic=_traffic(connection),
        left_at=connection.left_at,
        reason=connection.reason or None,
    )


def _ended(connection: _Connection, *, last: bool) -> Ended:
    return Ended(
        connection=connection.id,
        key=connection.key,
        at=connection.opened_at if connection.left_at is None else connection.left_at,
        reason=connection.reason,
        traffic=_traffic(connection),
        report=new_id() if is_reportable(connection.key) else None,
        last=last,
    )


def _traffic(connection: _Connection) -> Traffic | None:
    """Give what has passed through a connection, at times at which it was there."""
    known = connection.traffic
    return known and structs.replace(
        known,
        first_interaction_at=_meanwhile(connection, known.first_interaction_at),
        last_interaction_at=_meanwhile(connection, known.last_interaction_at),
    )


def _meanwhile(connection: _Connection, at: float | None) -> float | None:
    """Give `at` as a time at which the connection was there.

    It was measured on the loop's clock, which stands still for a turn: milliseconds beside the wall's.
    """
    if at is None:
        return None
    at = max(at, connection.opened_at)
    return at if connection.left_at is None else min(at, connection.left_at)


def _storable_key(key: NotebookKey) -> NotebookKey:
    return NotebookKey(key.instance_id, storable(key.kernel_id), storable(key.session_id))
