"""What can be said of a service's `match` without a request: whether its group can be an instance id."""

import re
from typing import Final

import regress

_ATOM: Final = re.compile(
    r"""\\.                              # escaped
      | \[ (?: \\. | [^\]\\] )* \]       # a class
      | \{ [0-9]+ (?: , [0-9]* )? \}     # how often
      | \( (?: \?<(?![=!]) [^>]* > )?    # a group, with its name if any
      | .""",
    re.DOTALL | re.VERBOSE,
)

_NO_CHARACTER: Final = "()|?*+^$"

_KNOWN_ESCAPES: Final = "dDwWsSnrtfv"
"""Other letters and digits stand for what was captured, or are followed by a code."""


def is_never_an_id(match: str) -> bool:
    """Say whether nothing that the first group takes has a digit; False also where that is not sure."""
    return not any(map(_takes_a_digit, _first_group(match)))


def _first_group(match: str) -> list[str]:
    """Return what stands between the parentheses of the first group that captures."""
    atoms, depth, inside = _ATOM.findall(match), 0, list[str]()
    for index, atom in enumerate(atoms):
        if depth:
            depth += atom.startswith("(") - (atom == ")")
            if not depth:
                break
            inside.append(atom)
        elif atom.startswith("(") and (atom != "(" or atoms[index + 1] != "?"):
            depth = 1
    return inside


def _takes_a_digit(atom: str) -> bool:
    if atom[0] in _NO_CHARACTER or (atom[0] == "{" and len(atom) > 1):
        return False
    if atom[0] == "\\" and atom[1].isalnum() and atom[1] not in _KNOWN_ESCAPES:
        return True
    if len(atom) == 1 and atom != ".":
        return atom.isdigit()
    pattern = regress.Regex(atom)
    return any(pattern.find(digit) is not None for digit in "0123456789")
