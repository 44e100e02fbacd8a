"""Rows as a table for people, as JSON, or as CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain, islice
from typing import Any, Final

from visa_jupyter_proxy.sessions.times import duration

type Row = dict[str, Any]

_MEASURED: Final = 1000
"""Rows that give a table's columns their widths; those that follow may be wider."""

_TEXTS: Final = frozenset({"opened", "closed", "day", "user", "kernel", "session", "reason", "told"})
"""Columns that begin at the left; numbers end at the right."""


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def lines(rows: Iterable[Row], columns: Sequence[str], form: Format) -> Iterator[str]:
    """Write the rows, as they come. A value that is not known is `-`, null, or empty."""
    layouts: dict[Format, Callable[[Iterable[Row], Sequence[str]], Iterator[str]]] = {
        Format.TABLE: _table,
        Format.JSON: _json,
        Format.CSV: _csv,
    }
    return layouts[form](rows, columns)


def _json(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    separator = "["
    for row in rows:
        yield separator + json.dumps({name: row[name] for name in columns})
        separator = ","
    yield "[]" if separator == "[" else "]"


def _csv(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """Write what RFC 4180 says, with a head, but lines that end as everywhere here."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    for values in chain([columns], ([_no_formula(row[name]) for name in columns] for row in rows)):
        writer.writerow(values)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _no_formula(value: object) -> object:
    """Spreadsheets compute what begins like this, and some of it is chosen by users: the id of a kernel."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def _table(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    rest = iter(rows)
    measured = [[_cell(name, row[name]) for name in columns] for row in islice(rest, _MEASURED)]
    heads = [name.removesuffix("_s").replace("_", " ") for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *measured, strict=True)]
    is_text = [name in _TEXTS for name in columns]
    others = ([_cell(name, row[name]) for name in columns] for row in rest)
    for cells in chain([heads], measured, others):
        padded = (
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(cells, widths, is_text, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    return duration(value) if name.endswith("_s") and isinstance(value, int | float) else str(value)
