"""What to say about a `proxy.conf.json` that is no JSON."""

import json
from pathlib import Path
from typing import Final

_STARTS_A_VALUE: Final = '"{[-0123456789tfn'

_NOT_IN_JSON: Final = (
    # What other notations have, and what to do.
    ("//", "there are no comments in JSON: remove it"),
    ("/*", "there are no comments in JSON: remove it"),
    ("#", "there are no comments in JSON: remove it"),
    ("'", "write double quotes instead of single ones"),
)

_SAID: Final = (
    # What Python's parser says, and what to do.
    ("Invalid \\escape", "a backslash is written twice in JSON, such as \\\\d"),
    ("Invalid \\u", "after \\u come four hexadecimal digits; a backslash itself is written twice"),
    ("Invalid control character", "a text ends on the line it began on: add the missing double quote"),
    ("Unterminated string", "a text has no end: add the missing double quote"),
    ("Expecting ':'", "write a colon between a key and its value"),
    ("Expecting property name", "write a key in double quotes"),
    ("Extra data", "the array has ended before this: remove what follows, or the bracket too much"),
)


def syntax_mistake(path: Path, text: str, error: json.JSONDecodeError) -> str:
    """Say where and why `text` is no JSON: file, line, column and the likely remedy."""
    if not text.strip():
        return f"{path}: is empty: write an array of services, [{{...}}, {{...}}]"
    return f"{path}:{error.lineno}:{error.colno}: is not JSON: {_remedy(text, error)}"


def _remedy(text: str, error: json.JSONDecodeError) -> str:
    before, rest = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if not rest:
        return "the file ends too early: a closing bracket or brace is missing"
    if _is_trailing_comma(before, rest):
        return "remove the comma before the closing bracket or brace"
    for start, remedy in _NOT_IN_JSON:
        if rest.startswith(start):
            return remedy
    if error.msg.startswith("Expecting ','"):
        return _missing_comma(before, rest)
    return next((remedy for start, remedy in _SAID if error.msg.startswith(start)), f"{error.msg} here")


def _missing_comma(before: str, rest: str) -> str:
    if rest[0] not in _STARTS_A_VALUE:
        return "write a comma or a closing bracket or brace"
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f"a comma is probably missing before this, at {line}:{column}"


def _is_trailing_comma(before: str, rest: str) -> bool:
    # Python 3.13 points at the comma, 3.12 at what follows it.
    if rest.startswith(","):
        rest = rest[1:].lstrip()
        return rest[:1] in {"]", "}"}
    return before.endswith(",") and rest[0] in "]}"
