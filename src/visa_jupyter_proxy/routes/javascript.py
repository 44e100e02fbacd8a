r"""Patterns and replacements as JavaScript means them, which `proxy.conf.json` is written in.

`regress` knows ECMAScript patterns (ASCII `\d`, `(?<name>...)`). What it does not say is which groups
a pattern has, and it does not replace: both are here (ECMA-262 22.1.3.19, GetSubstitution).
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import regress

PatternError = regress.RegressError
"""What `regress.Regex` raises for a pattern that is none."""

type Groups = tuple[str | None, ...]
"""The capturing groups of a pattern in their order, each by its name or None."""

_GROUP: Final = re.compile(
    r"""\\.                              # escaped, so no group
      | \[ (?: \\. | [^\]\\] )* \]       # in a class, so no group; `[]` is a class here
      | (?P<group> \( (?: (?!\?) | \?<(?![=!]) (?P<name>[^>]*) > ) )""",
    re.DOTALL | re.VERBOSE,
)

_DOLLAR: Final = re.compile(r"\$(?:(?P<sign>[$&`'])|(?P<digits>[0-9]{1,2})|<(?P<name>[^>]*)>)", re.DOTALL)

_WHOLE: Final = 0
_BEFORE: Final = -1
_AFTER: Final = -2

type _Part = str | int
"""Literal text, the number of a group, or one of the three above."""

_SIGNS: Final[dict[str, _Part]] = {"$": "$", "&": _WHOLE, "`": _BEFORE, "'": _AFTER}


def check(pattern: str) -> None:
    """Raise `PatternError` when `pattern` is none."""
    regress.Regex(pattern)


def groups(pattern: str) -> Groups:
    """Return the capturing groups of a valid pattern."""
    return tuple(found["name"] for found in _GROUP.finditer(pattern) if found["group"])


class Replaced(NamedTuple):
    """A text in which the first match of a pattern was replaced."""

    text: str
    old_end: int
    """Where the match ended in the original."""
    new_end: int
    """Where what stands for it ends in `text`; behind that both are the same."""


class Replacement:
    """`text.replace(new RegExp(pattern), template)`, compiled. Raises `PatternError`."""

    __slots__ = ("_parts", "_regex")

    def __init__(self, pattern: str, template: str) -> None:
        self._regex = regress.Regex(pattern)
        self._parts = tuple(_parts(template, groups(pattern)))

    def apply(self, text: str) -> Replaced | None:
        """Replace the first match in `text`, which is ASCII; None when there is none."""
        match = self._regex.find(text)
        whole = match.group(_WHOLE) if match is not None else None
        if match is None or whole is None:
            return None
        pieces = [_captured(match, _BEFORE, text)]
        pieces += [part if isinstance(part, str) else _captured(match, part, text) for part in self._parts]
        head = "".join(pieces)
        return Replaced(head + text[whole.stop :], whole.stop, len(head))


def _captured(match: regress.Match, part: int, text: str) -> str:
    # Offsets of `regress` count bytes of UTF-8: with ASCII they are those of `text`.
    group = match.group(max(part, _WHOLE))
    if group is None:
        return ""  # it took no part in the match
    if part == _BEFORE:
        return text[: group.start]
    return text[group.stop :] if part == _AFTER else text[group]


def _parts(template: str, groups: Groups) -> Iterator[_Part]:
    position = 0
    while found := _DOLLAR.search(template, position):
        yield template[position : found.start()]
        parts, length = _meaning(found, groups)
        yield from parts
        position = found.start() + length
    yield template[position:]


def _meaning(found: re.Match[str], groups: Groups) -> tuple[list[_Part], int]:
    """Return what a `$...` stands for, and how many characters of it that takes."""
    if sign := found["sign"]:
        return [_SIGNS[sign]], 2
    if digits := found["digits"]:
        # Two digits beyond the last group are one digit and a literal.
        if int(digits) > len(groups):
            digits = digits[0]
        number = int(digits)
        part: _Part = number if 1 <= number <= len(groups) else "$" + digits
        return [part], 1 + len(digits)
    if not any(groups):
        return ["$<"], 2  # without named groups it is literal
    # A name that no group has stands for nothing; ECMAScript 2025 lets several groups share one.
    return [number for number, name in enumerate(groups, 1) if name == found["name"]], len(found[0])
