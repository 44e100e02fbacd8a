"""Variables with our prefix, from the environment, `.env` and files, before anyone asks what they mean."""

import difflib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

_FILE = "_FILE"

_MOST_SHOWN = 100
"""Characters of a value that a mistake shows: enough to recognise it."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a variable was set to."""

    text: str
    file: Path | None = None
    """Where it was read from by way of `<NAME>_FILE`: it may be a secret."""


@dataclass(slots=True)
class Given:
    """All that was set, names without the prefix, and what was wrong with it already."""

    values: dict[str, Value] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def shown(self, name: str) -> str:
        """Show the value of a variable without what may be secret in it."""
        value = self.values[name]
        if value.file is not None:
            return f"the content of {value.file}"
        # Credentials, and a query that may have some, in a URL. A password that should have been encoded
        # may hold anything: up to the last @.
        text = re.sub(r"(?s)^(\w[\w+.-]*://)?.*@", r"\1***@", value.text)
        text = re.sub(r"(?<=[?#]).*", "***", text, flags=re.DOTALL)
        return json.dumps(text[:_MOST_SHOWN] + "..." if len(text) > _MOST_SHOWN else text)


def read(prefix: str, known: Iterable[str], environ: Mapping[str, str], directory: Path) -> Given:
    """Read the `known` variables from `environ` and `directory / ".env"`; the former wins.

    An empty value counts as unset. Never raises: mistakes are in the answer.
    """
    known = tuple(known)
    given = Given()
    written = _dotenv(directory / ".env", given)
    texts: dict[str, str] = {}
    for place, source in (("in .env", written), ("in the environment", environ)):
        ours = {
            name: text for name, text in source.items() if name.upper().startswith(prefix) and text.strip()
        }
        given.warnings += _unknown(prefix, known, ours, place)
        texts |= {name.removeprefix(prefix): text for name, text in ours.items()}
    given.warnings += _without_prefix(prefix, known, written, texts)
    for name in known:
        value = _value(prefix, name, texts, directory, given)
        if value is not None and _is_text(value.text):
            given.values[name] = value
        elif value is not None:
            given.mistakes.append(f"{prefix}{name}: is not UTF-8: write it in UTF-8")
    return given


def _is_text(value: str) -> bool:
    # Python shows bytes of the environment that are no UTF-8 as lone surrogates, which nothing can encode.
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _dotenv(path: Path, given: Given) -> dict[str, str]:
    if not path.is_file():
        # Docker makes a directory where the file that is to be mounted is not there.
        if path.is_dir() or path.is_symlink():
            given.warnings.append(f"{path} is no file, and is ignored")
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        given.mistakes.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        given.mistakes.append(f"{path}: is not UTF-8: save the file as UTF-8")
        return {}
    variables: dict[str, str] = {}
    # Without the interpolation of `${...}`, which the original does not do.
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            given.warnings.append(f"{path}:{binding.original.line}: is not NAME=value, and is ignored")
        elif binding.key is not None:
            variables[binding.key] = binding.value or ""
    return variables


def _unknown(prefix: str, known: tuple[str, ...], names: Iterable[str], place: str) -> list[str]:
    allowed = {*known, *(name + _FILE for name in known if not name.endswith(_FILE))}
    warnings = []
    for name in names:
        rest = name[len(prefix) :]
        if not name.startswith(prefix) or rest not in allowed:
            # Any guess is better than none: the operator knows what was meant.
            near = difflib.get_close_matches(rest.upper(), sorted(allowed), n=1, cutoff=0)
            warnings.append(f"{name} {place} is no setting, and is ignored. Is {prefix}{near[0]} meant?")
    return warnings


def _without_prefix(
    prefix: str, known: tuple[str, ...], written: Mapping[str, str], texts: Mapping[str, str]
) -> list[str]:
    """Warn of settings in `.env` that lack the prefix. In the environment they may be another program's."""
    # One that is set rightly as well is there for somebody else, such as Docker Compose.
    names = [name for name in written if name.upper() in known and name.upper() not in texts]
    return [
        f"{name} in .env is no setting, and is ignored. Is {prefix}{name.upper()} meant?" for name in names
    ]


def _value(prefix: str, name: str, texts: Mapping[str, str], directory: Path, given: Given) -> Value | None:
    text, file = texts.get(name), None if name.endswith(_FILE) else texts.get(name + _FILE)
    if file is None:
        return None if text is None else Value(text)
    if text is not None:
        given.mistakes.append(f"{prefix}{name} and {prefix}{name}{_FILE} are both set: remove one of them")
        return None
    path = directory / file
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        given.mistakes.append(f"{prefix}{name}{_FILE}: {path} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        given.mistakes.append(f"{prefix}{name}{_FILE}: {path} is not UTF-8")
    else:
        content = content.removesuffix("\n").removesuffix("\r")
        return Value(content, path) if content else None
    return None
