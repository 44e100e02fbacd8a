"""From an event and its fields to a line of text that nothing in them can forge or break."""

import functools
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from select import PIPE_BUF
from types import TracebackType
from typing import Any, Final

import msgspec

LEVELS: Final = ("emerg", "alert", "crit", "error", "warning", "notice", "info", "debug")
"""The levels of syslog, most severe first; the position is the severity (RFC 5424 6.2.1)."""

SEVERITY: Final = {level: severity for severity, level in enumerate(LEVELS)}

_AS_IT_IS: Final = frozenset({str, int, bool, type(None)})

type Fields = dict[str, Any]
type Render = Callable[[Fields], str]

_LONGEST: Final = (2048, 512, 128, 32, 8)
"""Characters of a value; the next one is tried when a line is longer than a pipe takes at once."""

_TOKEN: Final = re.compile(r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|(?i:(?<=\bbearer )|(?<=token=))[^\s;&,'\"]+")
"""A JWT, and what follows `Bearer` and `token=` (`access_token=` too)."""

_json: Final[Render] = json.JSONEncoder(ensure_ascii=True).encode

_NEEDS_QUOTES: Final = re.compile(r"""[\s"=\\]|^$""")

_BOLD, _DIM, _CYAN = "\x1b[1m", "\x1b[2m", "\x1b[36m"
_BOLD_RED, _RED, _YELLOW, _GREEN, _PLAIN = "\x1b[1;31m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_OF_A_LEVEL: Final = (_BOLD_RED, _BOLD_RED, _BOLD_RED, _RED, _YELLOW, _GREEN, _GREEN, _DIM)
_WIDTH: Final = max(map(len, LEVELS))


def without_tokens(text: str) -> str:
    """Blank what looks like a token."""
    lower = text.lower()
    # Without any of these there is none: to look for them takes a twentieth of looking for a token.
    has_signs = "eyj" in lower or "bearer " in lower or "token=" in lower
    return _TOKEN.sub("***", text) if has_signs else text


def exception_text(exc_info: object, *, whole: bool) -> str | None:
    """Return the traceback (`whole`) or the last line of an exception: `exc_info` as `logging` has it.

    None when there is no exception.
    """
    error = _exception(exc_info)
    if error is None:
        return None
    lines = traceback.format_exception(error) if whole else traceback.format_exception_only(error)
    return without_tokens("".join(lines).rstrip())


def _exception(exc_info: object) -> BaseException | None:
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, TracebackType() | None):
            return error
        case True:
            return sys.exception()
        case _:
            return None


def json_line(fields: Fields) -> bytes:
    """Render `fields` as a line of JSON: ASCII, so no character is a line break to anyone.

    Most are short and of plain values, and need nothing else: that takes a third of the time.
    """
    if all(type(value) in _AS_IT_IS or _is_number(value) for value in fields.values()):
        with suppress(UnicodeEncodeError):  # of half a character
            data = msgspec.json.format(msgspec.json.encode(fields), indent=0)
            if len(data) <= _LONGEST[0] and data.isascii():
                return data + b"\n"
    return _line(_json, fields)


def _is_number(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _line(render: Render, fields: Fields) -> bytes:
    """Render `fields` as a line that a pipe takes at once, so that those of two processes never mix.

    POSIX promises that for `PIPE_BUF` bytes; longer values are cut until it fits.
    """
    for longest in _LONGEST:
        text = render({name: _shown(name, value, longest) for name, value in fields.items()})
        data = (text + "\n").encode("utf-8", "backslashreplace")
        if len(data) <= PIPE_BUF:
            break
    return data


def _shown(name: str, value: object, longest: int) -> object:
    if type(value) in _AS_IT_IS and not (isinstance(value, str) and len(value) > longest):
        return value  # as nearly all are
    return _cut(name, _plain(value), longest)


def _plain(value: object) -> object:
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    # JSON has no NaN and no infinity; other things are known by their text.
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _cut(name: str, value: object, longest: int) -> object:
    if not isinstance(value, str) or len(value) <= longest or name in {"timestamp", "level"}:
        return value
    # Where it went wrong stands at the end of a traceback.
    return "..." + value[-longest:] if name == "exception" else value[:longest] + "..."


def terminal_line(*, colours: bool) -> Callable[[Fields], bytes]:
    """Return what renders fields as a line of key=value for people."""

    def paint(colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if colours else text

    def render(fields: Fields) -> str:
        shown = {name: _visible(name, value) for name, value in fields.items()}
        timestamp, level, event = shown.pop("timestamp"), shown.pop("level"), shown.pop("event")
        exception = shown.pop("exception", None)
        level = paint(_OF_A_LEVEL[SEVERITY[level]], level.ljust(_WIDTH))
        line = [paint(_DIM, timestamp), f"[{level}]", paint(_BOLD, event)]
        line += [f"{paint(_CYAN, name)}={value}" for name, value in shown.items()]
        return " ".join(line) if exception is None else " ".join(line) + "\n" + exception

    return functools.partial(_line, render)


def _visible(name: str, value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    if name == "exception":
        # Indented, because a line of the log never is.
        return "\n".join("    " + _escaped(one) for one in value.split("\n"))
    return _escaped(value) if name == "event" else _quoted(value)


def key_values(fields: Mapping[str, object]) -> str:
    """Render an event and its fields on one line, for syslog, which has a time and a level of its own."""
    parts = [_escaped(str(fields["event"]))]
    for name, value in fields.items():
        if name == "exception":
            value = str(value).rpartition("\n")[2]  # noqa: PLW2901 -- its last line says what it is
        if name not in {"event", "level", "timestamp"}:
            parts.append(f"{name}={_quoted(str(_plain(value)))}")
    return " ".join(parts)


def _quoted(value: str) -> str:
    if not _NEEDS_QUOTES.search(value) and value.isprintable():
        return value
    return '"' + _escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def wants_colours(terminal: bool) -> bool:
    """Tell whether to colour: on a terminal, unless `NO_COLOR` is set (no-color.org)."""
    return terminal and not os.environ.get("NO_COLOR")
