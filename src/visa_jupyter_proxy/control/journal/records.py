"""What is written to the journal, and what the journal says about it."""

import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final, Literal

from visa_jupyter_proxy.identifiers import LONGEST_ID
from visa_jupyter_proxy.mailbox import NotebookKey, Traffic

type Kind = Literal["open", "close"]


class ReportState(StrEnum):
    """How far a report has come; every state but PENDING is final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"
    """The API knows no such instance of this user: nothing was opened there."""
    NOT_DELIVERED = "not delivered"
    """No token was left with which it could have been delivered."""


def is_reportable(key: NotebookKey) -> bool:
    """Whether the VISA API can be told of this session; printable, since its database refuses a NUL."""
    return all(0 < len(name) <= LONGEST_ID and name.isprintable() for name in (key.kernel_id, key.session_id))


_random: Final = Random()  # noqa: S311 -- ids are no secrets, and the system's own random numbers cost a call
os.register_at_fork(after_in_child=_random.seed)


_VARIANT: Final = 0b10 << 62
"""RFC 9562 section 4.1."""


def new_id() -> str:
    """Make an id for a row, unique without asking anybody: a UUID of version 7 (RFC 9562 section 5.7).

    It begins with the time, so rows of one moment have their places in an index side by side: with random
    ones each row changed pages of its own, and twice as much was written. Nothing is decided by it.
    """
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds:012x}7{_random.getrandbits(12):03x}{_VARIANT | _random.getrandbits(62):016x}"


@dataclass(slots=True)
class Opened:
    """A connection of a session has begun."""

    connection: str
    worker: int
    tunnel: int
    key: NotebookKey
    user: str
    token: str = field(repr=False)
    """For the report; stays in memory."""
    at: float
    session: str
    """Id of the session, if this connection turns out to open one."""
    report: str | None
    """Id of its report, if one is due; None when the session cannot be reported."""
    first: bool
    """Whether this is the only connection of its session in this process."""
    released: bool = False
    """The report was decided without the journal, which could not be written then."""


@dataclass(slots=True)
class Progressed:
    """How far a connection has come; the newest such record replaces what an older one has said.

    `left_at` is for a connection that is over, but whose session may come back before it counts as
    closed: it goes on to carry its session until it is `Ended`. If nobody is left to say so, it is
    taken to have ended then. What is None is not known.
    """

    connection: str
    traffic: Traffic | None
    left_at: float | None = None
    reason: str | None = None


@dataclass(slots=True)
class Ended:
    """A connection carries its session no longer; `at` is when it was over.

    What is None is not known any more: then that of the last `Progressed` stays.
    """

    connection: str
    key: NotebookKey
    at: float
    reason: str
    traffic: Traffic | None
    report: str | None
    last: bool
    """Whether the session has no other connection in this process."""
    released: bool = False


@dataclass(slots=True)
class Settled:
    """A report has reached its final state."""

    report: str
    state: ReportState
    attempts: int
    at: float


type Record = Opened | Progressed | Ended | Settled


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is in the journal and has to be delivered by the process that is told so."""

    report: str
    kind: Kind
    key: NotebookKey
    number: int
    """Its place in the order of its key."""
    blocked: bool = False
    """An earlier report of this key is pending with another owner: wait for that."""
    user: str = ""
    """Whose session it is; known of an adopted report."""
