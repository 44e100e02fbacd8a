"""Field lines (RFC 9112 5): taken apart and sorted, each kind of line once.

A browser and a server send the same lines with every message, so what was made of a line is kept:
a look-up takes a tenth of a match (0.1 us, 1.0 us), and the line that is sent on is ready made.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

from visa_jupyter_proxy.errors import ProxyError

type Lines = list[bytes]
"""Field lines as they are sent, each with its CRLF; an element may hold several."""

type Fields = Sequence[tuple[bytes, bytes]]
"""Names and values of a trailer section."""

type Named = dict[bytes, list[bytes]]
"""Lower-case name -> values in order."""

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""RFC 9110 5.6.2"""

# Possessive: spaces could be taken by either of two repetitions, and no split is worth a second try.
_FIELD_LINE: Final = re.compile(rb"(" + TOKEN + rb"):[ \t]*+([\t -~\x80-\xff]*+)")

_LONGEST_KEPT: Final = 256
"""Bytes of a line; longer ones (cookies) hold tokens, and differ from user to user."""
_MOST_KEPT: Final = 1024
"""Lines of requests, and of responses: at most about a MiB each. Beyond that, all are forgotten."""


type _Line = tuple[bytes, bytes, bytes]
"""The lower-case name of a field that is read here, or never sent on as it came (else empty); its value;
the line to send on, empty where none is. A plain tuple: taking a named one apart costs three times as much,
ten times for a message."""


class _Kept(dict[bytes, _Line]):
    """What was made of short lines; looking a new one up makes it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[bytes], _Line]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, line: bytes) -> _Line:
        made = self._make(line)
        if len(line) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[line] = made
        return made


class Sorter:
    """Takes the lines of one kind of head apart."""

    def __init__(
        self,
        special: frozenset[bytes],
        read: frozenset[bytes],
        invalid: type[ProxyError],
        *,
        families: tuple[bytes, ...],
        aliases: bool,
    ) -> None:
        """Sort by lower-case name: `special` fields are never sent on as they came.

        Nor are those that begin as one of `families`, but for `read` ones, which are sent on, and read.
        A line that is no field raises `invalid`, and so does, unless `aliases` pass, a name that an
        application behind us may take for a special one (case 30).
        """
        self._special = special
        self._read = read
        self._invalid = invalid
        self._families = families
        self._aliases = aliases
        self._made = _Kept(self._sort).__getitem__

    def sort(self, lines: list[bytes]) -> tuple[Lines, Named]:
        """Return the lines to send on, and the values of special fields and of those that are read."""
        sent: Lines = []
        named: Named = {}
        for key, value, as_sent in map(self._made, lines):
            if as_sent:
                sent.append(as_sent)
            if key:
                named.setdefault(key, []).append(value)
        return sent, named

    def _sort(self, line: bytes) -> _Line:
        field = _FIELD_LINE.fullmatch(line)
        if field is None:
            raise self._invalid("a line that is no field")
        name, value = field[1], field[2].rstrip(b" \t")
        key = name.lower()
        if self._is_special(key):
            return key, value, b""
        if not self._aliases and self._is_special(plain(key)):
            raise self._invalid("a field name that imitates another")
        return key if key in self._read else b"", value, b"%b: %b\r\n" % (name, value)

    def _is_special(self, key: bytes) -> bool:
        return key in self._special or (key.startswith(self._families) and key not in self._read)


def name_of(line: bytes) -> bytes:
    """Return the name of a field line in lower case."""
    return line[: line.index(b":")].lower()


def plain(key: bytes) -> bytes:
    """Return a lower-case name as those see it who take `_` and `.` for `-` (case 30)."""
    return key.replace(b"_", b"-").replace(b".", b"-")
