"""Statements with a list of values, of any length."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Executable, Select, and_, bindparam, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TupleType

_MOST: Final = 4000
"""Values in one statement; three parameters each stay below what both databases allow (32 766 and 32 767)."""


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut into lists that are short enough."""
    every = list(values)
    return (every[start : start + _MOST] for start in range(0, len(every), _MOST))


def rows(connection: Connection, statement: Executable, values: Iterable[Any], **others: Any) -> list[Any]:
    """Execute a query whose expanding parameter is named `values`; without any, give nothing."""
    found: list[Any] = []
    for some in parts(values):
        found += connection.execute(statement, {"values": some, **others}).all()
    return found


class Among:
    """A query for the rows whose values of some columns are one of a list, by an index of these columns.

    Behind IN, SQLite looks up no more than the first column of a list of rows, or nothing at all: it has to
    join them. PostgreSQL looks up all of them there, and in a join does not know their types.
    """

    def __init__(self, query: Select[Any], columns: Sequence[ColumnElement[Any]]) -> None:
        """`query` is for all rows of the table that has `columns`."""
        values = bindparam("values", expanding=True, type_=TupleType(*(column.type for column in columns)))
        names = [f"column{number}" for number in range(1, 1 + len(columns))]  # as SQLite calls them
        wanted = _table(values).table_valued(*names, name="wanted")
        is_one = and_(*(column == value for column, value in zip(columns, wanted.c, strict=True)))
        self._queries = {
            "sqlite": query.join(wanted, is_one),
            "postgresql": query.where(tuple_(*columns).in_(values)),
        }

    def rows(self, connection: Connection, values: Iterable[Any], **others: Any) -> list[Any]:
        """Execute it for a list of tuples; `others` are its other parameters."""
        return rows(connection, self._queries[connection.dialect.name], values, **others)


class _table(FunctionElement[Any]):  # noqa: N801 -- a function
    """An expanding parameter of rows as a table."""

    inherit_cache = True


@compiles(_table, "sqlite")
def _as_behind_in(element: FunctionElement[Any], compiler: Any, **options: Any) -> str:
    # SQLAlchemy writes VALUES before rows for this engine.
    return str(compiler.process(element.clauses, **options))
