"""Which connections are open in this process. Plain code: no loop, no clock, no store."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from visa_jupyter_proxy.control.journal.records import LONGEST_ID, Ended, Opened, is_reportable, new_id
from visa_jupyter_proxy.mailbox import NotebookKey, TunnelEnded, TunnelOpened


@dataclass(slots=True)
class _Connection:
    id: str
    worker: int
    tunnel: int
    key: NotebookKey
    user: str
    opened_at: float
    token: str

    def __repr__(self) -> str:
        return f"_Connection({self.id}, worker={self.worker}, tunnel={self.tunnel})"


class Ledger:
    """The open connections of all workers of this process, and the records that their changes make."""

    def __init__(self) -> None:
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._carried: dict[NotebookKey, list[_Connection]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def opened(self, worker: int, message: TunnelOpened) -> Opened | None:
        """Enter a connection; None when it is there already."""
        if (worker, message.tunnel) in self._connections:
            return None
        key = _storable_key(message.notebook)
        carriers = self._carried.setdefault(key, [])
        connection = _Connection(
            id=new_id(),
            worker=worker,
            tunnel=message.tunnel,
            key=key,
            user=storable(message.user),
            opened_at=message.at,
            token=message.token,
        )
        carriers.append(connection)
        self._connections[worker, message.tunnel] = connection
        return _opened(connection, first=len(carriers) == 1)

    def ended(self, worker: int, message: TunnelEnded) -> Ended | None:
        """Strike a connection out; None when there is none."""
        if (worker, message.tunnel) not in self._connections:
            return None
        return self._strike(
            (worker, message.tunnel), message.reason, message.at, message.bytes_up, message.bytes_down
        )

    def lost(self, worker: int | None, reason: str, at: float) -> list[Ended]:
        """Strike out all connections of one worker, or of all (None). Their bytes are not known."""
        over = [place for place in self._connections if worker in (None, place[0])]
        return [self._strike(place, reason, at, None, None) for place in over]

    def token(self, key: NotebookKey) -> str | None:
        """Give the newest token with which a connection of this session was opened and still runs."""
        carriers = self._carried.get(key)
        return carriers[-1].token if carriers else None

    def declare(self, *, but: Collection[str], anew: bool) -> list[Opened]:
        """Make the records of all open connections again, except those in `but`.

        `anew`: the journal has ended them and closed their sessions, so these are new connections and
        sessions, to be reported. Otherwise it has only lost them, and nothing is to be reported.
        """
        records = []
        for carriers in self._carried.values():
            declared = [connection for connection in carriers if connection.id not in but]
            for connection in declared:
                if anew:
                    connection.id = new_id()
                record = _opened(connection, first=anew and connection is carriers[0])
                if not anew:
                    record.report, record.released = None, True
                records.append(record)
        return records

    def _strike(
        self, place: tuple[int, int], reason: str, at: float, bytes_up: int | None, bytes_down: int | None
    ) -> Ended:
        connection = self._connections.pop(place)
        carriers = self._carried[connection.key]
        carriers.remove(connection)
        if not carriers:
            del self._carried[connection.key]
        return Ended(
            connection=connection.id,
            key=connection.key,
            # Clocks are set back; a connection that ends before it begins helps nobody.
            at=max(at, connection.opened_at),
            reason=storable(reason),
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            report=new_id() if is_reportable(connection.key) else None,
            last=not carriers,
        )


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


_DIGEST: Final = 32


def storable(text: str) -> str:
    """Give text that every database can keep: what is too long or unprintable, shortened and escaped.

    A digest keeps two of them apart, and its length says that it is no id for the VISA API.
    """
    if len(text) <= LONGEST_ID and text.isprintable():
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    start = ascii(text)[1 : LONGEST_ID - _DIGEST + 1]
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST]
    return f"{start.ljust(LONGEST_ID - _DIGEST, '.')}~{digest}"


def _storable_key(key: NotebookKey) -> NotebookKey:
    return NotebookKey(key.instance_id, storable(key.kernel_id), storable(key.session_id))
