"""Statements with a list of values, of any length."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from sqlalchemy import Connection, Executable

_MOST: Final = 4000
"""Values in one statement; three parameters each stay below what both databases allow (32 766 and 32 767)."""


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut into lists that are short enough."""
    every = list(values)
    return (every[start : start + _MOST] for start in range(0, len(every), _MOST))


def rows(connection: Connection, statement: Executable, values: Iterable[Any]) -> list[Any]:
    """Execute a query whose expanding parameter is named `values`; without any, give nothing."""
    found: list[Any] = []
    for some in parts(values):
        found += connection.execute(statement, {"values": some}).all()
    return found
