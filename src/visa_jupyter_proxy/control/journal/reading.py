"""Questions about notebook sessions, for reports. Reading only, and one SQL for both engines.

A million sessions, a year of a busy facility, is the size that everything here is made for:

- A list is read in pages, each a transaction of its own: a terminal that is not read to its end keeps no
  snapshot open, which would stop the journal from being tidied.
- Summaries by day ask once for each day, along the index of beginnings. One statement with a group for
  each day would sort a million rows, and would have to know when a day begins. Days can be asked for beside
  each other, on several connections.
- Summaries by user or instance first come to one row for each pair of both, in the order of an index
  that holds all they read (`sessions_summary`); the few pairs are then grouped again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Float,
    Label,
    Select,
    Subquery,
    bindparam,
    cast,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from visa_jupyter_proxy.control.journal.records import Kind
from visa_jupyter_proxy.control.journal.schema import COUNTS, IS_PENDING, owners, reports, sessions
from visa_jupyter_proxy.identifiers import storable
from visa_jupyter_proxy.mailbox import NotebookKey

type Group = Literal["user", "instance"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions: all that fit. Times are Unix time, and those of a session's beginning."""

    since: float = 0.0
    until: float = math.inf
    """Not included."""
    user: str | None = None
    instance: int | None = None
    only_open: bool = False

    def clauses(self) -> list[ColumnElement[bool]]:
        """Give the conditions, for a WHERE."""
        clauses = [sessions.c.opened_at >= self.since, sessions.c.opened_at < self.until]
        if self.user is not None:
            clauses.append(sessions.c.user_id == storable(self.user))
        if self.instance is not None:
            clauses.append(sessions.c.instance_id == self.instance)
        if self.only_open:
            clauses.append(sessions.c.closed_at.is_(None))
        return clauses


def _reported(kind: Kind) -> Label[str | None]:
    # An opening that could not be reported is reported anew with the session's next connection.
    last = select(reports.c.state).where(reports.c.session == sessions.c.id, reports.c.kind == kind)
    return last.order_by(reports.c.number.desc()).limit(1).scalar_subquery().label(f"{kind}_report")


def page(connection: Connection, wanted: Wanted, after: tuple[float, str] | None, most: int) -> Sequence[Any]:
    """Give the next `most` rows of `sessions`, the newest first.

    `after` is (`opened_at`, `id`) of the last row of the page before. `open_report` and `close_report` are
    the states of what VISA is to be told; None when there is nothing to be told, or nothing yet.
    """
    query = select(sessions, _reported("open"), _reported("close")).where(*wanted.clauses())
    if after is not None:
        at, last = after
        # The first condition is what an index understands.
        query = query.where(sessions.c.opened_at <= at, or_(sessions.c.opened_at < at, sessions.c.id < last))
    query = query.order_by(sessions.c.opened_at.desc(), sessions.c.id.desc()).limit(most)
    return connection.execute(query).all()


# --- summaries ------------------------------------------------------------------------------------

_now: BindParameter[Any] = bindparam("now")
_since: BindParameter[Any] = bindparam("since")
_until: BindParameter[Any] = bindparam("until")

_length = func.coalesce(sessions.c.closed_at, _now) - sessions.c.opened_at
_is_known = sessions.c.user_id != ""
"""Not what the original has left: of those only the end is known."""


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # PostgreSQL's sum of whole numbers is a decimal one.
    return cast(func.sum(column), BigInteger)


_day = select(
    func.count().label("sessions"),
    func.count(sessions.c.user_id.distinct()).label("users"),
    func.count(sessions.c.instance_id.distinct()).label("instances"),
    func.sum(_length).label("seconds"),
    *(_sum(sessions.c[name]).label(name) for name in COUNTS),
).where(sessions.c.opened_at >= _since, sessions.c.opened_at < _until, _is_known)


def by_day(
    connection: Connection, days: Iterable[tuple[str, float, float]], now: float
) -> list[dict[str, Any]]:
    """Sum the sessions up that began in each of these days: name, beginning, end. Empty ones are left out.

    `now` is taken for the end of those that are open.
    """
    found = []
    for name, since, until in days:
        row = connection.execute(_day, {"since": since, "until": until, "now": now}).one()
        if row.sessions:
            found.append({"day": name, **row._asdict()})
    return found


def span(connection: Connection, since: float, until: float) -> tuple[float, float] | None:
    """Give the beginnings of the first and the last session that began between these; None without any."""
    within = (sessions.c.opened_at >= since, sessions.c.opened_at < until)
    # Two questions: SQLite answers one for both by reading all.
    first = connection.scalar(select(func.min(sessions.c.opened_at)).where(*within))
    last = connection.scalar(select(func.max(sessions.c.opened_at)).where(*within))
    return None if first is None or last is None else (first, last)


class _not_by_index(FunctionElement[float]):  # noqa: N801 -- a function
    """A column that SQLite shall not look up by another index than that of the groups.

    A unary plus says so (sqlite.org/optoverview.html). PostgreSQL decides by its statistics, which it has
    of columns alone.
    """

    inherit_cache = True
    type = Float()


@compiles(_not_by_index)
def _as_it_is(element: FunctionElement[float], compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_not_by_index, "sqlite")
def _with_a_plus(element: FunctionElement[float], compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


_pairs = (
    select(
        sessions.c.user_id,
        sessions.c.instance_id,
        func.count().label("sessions"),
        func.sum(_length).label("seconds"),
        *(_sum(sessions.c[name]).label(name) for name in COUNTS),
    )
    .where(_not_by_index(sessions.c.opened_at) >= _since, _not_by_index(sessions.c.opened_at) < _until)
    .where(_is_known)
    .where(sessions.c.closed_at.is_not(None))
    .group_by(sessions.c.user_id, sessions.c.instance_id)
)
# A few, and not in groups: for those a planner would walk through all sessions in their order.
_running = select(
    sessions.c.user_id,
    sessions.c.instance_id,
    cast(1, BigInteger),
    _length,
    *(sessions.c[name] for name in COUNTS),
).where(
    sessions.c.opened_at >= _since,
    sessions.c.opened_at < _until,
    _is_known,
    sessions.c.closed_at.is_(None),
)


def _summary(group: ColumnElement[Any], counted: ColumnElement[Any], name: Group, others: str) -> Select[Any]:
    seconds = func.sum(_both.c.seconds).label("seconds")
    return (
        select(
            group.label(name),
            _sum(_both.c.sessions).label("sessions"),
            func.count(counted.distinct()).label(others),
            seconds,
            *(_sum(_both.c[name]).label(name) for name in COUNTS),
        )
        .group_by(group)
        .order_by(seconds.desc(), group)
    )


_both: Final[Subquery] = union_all(_pairs, _running).subquery("both")
_summaries: Final[dict[Group, Select[Any]]] = {
    "user": _summary(_both.c.user_id, _both.c.instance_id, "user", "instances"),
    "instance": _summary(_both.c.instance_id, _both.c.user_id, "instance", "users"),
}


def by(connection: Connection, group: Group, since: float, until: float, now: float) -> list[dict[str, Any]]:
    """Sum up the sessions of each user or instance that began between these, the longest in use first."""
    rows = connection.execute(_summaries[group], {"since": since, "until": until, "now": now})
    return [row._asdict() for row in rows]


# --- the way back -----------------------------------------------------------------------------------


def believed_open(connection: Connection) -> list[NotebookKey]:
    """Give the sessions that VISA may believe open: they are, or their close has not been delivered."""
    pending = select(reports.c.session).where(reports.c.kind == "close", IS_PENDING)
    key = (sessions.c.instance_id, sessions.c.kernel_id, sessions.c.session_id)
    query = (
        select(*key)
        .where(or_(sessions.c.closed_at.is_(None), sessions.c.id.in_(pending)))
        .distinct()
        .order_by(*key)
    )
    return [NotebookKey(*row) for row in connection.execute(query)]


_writers = (
    select(owners.c.node, owners.c.pid)
    .where(owners.c.stopped_at.is_(None), owners.c.beat_at > bindparam("since"))
    .order_by(owners.c.node, owners.c.pid)
)


def writers(connection: Connection, since: float) -> list[tuple[str, int]]:
    """Give node and process of the proxies that beat since then, by their clocks, and have not stopped."""
    return [(row.node, row.pid) for row in connection.execute(_writers, {"since": since})]
