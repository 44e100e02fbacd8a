"""What the pages say: one file for each language, `<language>.toml`."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

type Texts = Mapping[str, Mapping[str, str]]
"""Section -> key -> text."""

LANGUAGE_FILE: Final = ".toml"

_SHIPPED: Final = Path(__file__).parent / "texts"
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
"""A primary language subtag (RFC 5646 2.2.1): no region is looked at."""


def read_texts(directory: Path | None, mistakes: list[str]) -> dict[str, Texts]:
    """Return the texts of every language; English, the first one, says what others leave out.

    What is wrong with a file is added to `mistakes`.
    """
    english = _read(_SHIPPED / "en.toml", mistakes)
    languages = {"en": english, "fr": _read(_SHIPPED / "fr.toml", mistakes)}
    for path in sorted([] if directory is None else directory.glob("*" + LANGUAGE_FILE)):
        own = _read(path, mistakes)
        mistakes += _strangers(path, own, english)
        if _LANGUAGE.fullmatch(path.stem):
            own.setdefault("words", {}).setdefault("language", path.stem)
            languages[path.stem] = _over(languages.get(path.stem, english), own)
        else:
            mistakes.append(f"{path}: name it after a language, such as en.toml, fr.toml or de.toml")
    return {language: _over(languages["en"], texts) for language, texts in languages.items()}


def _read(path: Path, mistakes: list[str]) -> dict[str, dict[str, str]]:
    """Read a file of sections of texts; nothing else may be in it."""
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(f"{path}: {error}")
        return {}
    texts: dict[str, dict[str, str]] = {}
    for section, values in content.items():
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
            texts[section] = values
        else:
            mistakes.append(f'{path}: write sections of texts, such as [{section}] and title = "..."')
    return texts


def _strangers(path: Path, own: Texts, english: Texts) -> Iterator[str]:
    """Tell of names that no page uses."""
    for section, values in own.items():
        if section not in english:
            yield f"{path}: there is no [{section}]{_nearest(section, english)}"
            continue
        for key in values:
            if key not in english[section]:
                yield f"{path}: there is no {key} in [{section}]{_nearest(key, english[section])}"


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; do you mean {near[0]}?" if near else f": there are {', '.join(known)}"


def _over(below: Texts, above: Texts) -> dict[str, dict[str, str]]:
    return {section: {**values, **above.get(section, {})} for section, values in below.items()}
