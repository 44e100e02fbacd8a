"""The reference says what the code does, and all of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.generated import NAME, PAGES, SOURCE, is_log
from visa_jupyter_proxy.cli import app
from visa_jupyter_proxy.control.admin.openapi import document
from visa_jupyter_proxy.logs import LEVELS
from visa_jupyter_proxy.routes import conf
from visa_jupyter_proxy.settings import FIELDS

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"


@pytest.mark.parametrize("place", PAGES)
def test_a_generated_page_is_what_the_code_says(place: str) -> None:
    """Settings are described in settings.py alone, commands in their docstrings, and so on."""
    written = (_DOCS / place).read_text()
    assert PAGES[place]() == written, f"docs/{place} is not what the code says: run `make reference`"


def test_every_setting_has_its_row() -> None:
    """In the order of settings.py, and no other."""
    rows = re.findall(r"^\| `([A-Z_]+)`", (_DOCS / "reference" / "settings.md").read_text(), re.MULTILINE)
    assert [name.upper() for name in FIELDS] == rows


def test_the_readme_has_no_table_of_settings_of_its_own() -> None:
    """A setting is described once: in settings.py, from which the reference is made."""
    rows = re.findall(r"^\| `([A-Z_]{4,})`", (_ROOT / "README.md").read_text(), re.MULTILINE)
    assert [] == rows, "describe settings in settings/settings.py, and run `make reference`"


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                yield f"{path.relative_to(SOURCE)}:{call.lineno}", call


def test_every_line_of_the_log_is_found() -> None:
    """What logs is called so that the page has it: by no other name, and with all fields written out."""
    called = [(place, call) for place, call in _calls() if isinstance(call.func, ast.Attribute)]
    levels = [(place, call) for place, call in called if getattr(call.func, "attr", "") in LEVELS]
    assert len(levels) > 40
    assert [] == [place for place, call in levels if not is_log(call.func)]
    # The fields of `state` are those of the two tables in behaviour.md, which test_state compares.
    hidden = [place for place, call in levels if any(one.arg is None for one in call.keywords)]
    assert ["state.py"] == [place.partition(":")[0] for place in hidden]


def test_every_path_of_the_api_is_described() -> None:
    """None is served that the page does not have."""
    served = {
        (ast.literal_eval(ast.unparse(path).replace("{PREFIX}", "").replace("{API}", "").lstrip("f")), add[1])
        for _, call in _calls()
        if (add := re.search(r"router\.add_(\w+)$", ast.unparse(call.func)))
        and isinstance(path := call.args[0], ast.JoinedStr)
    }
    described = {
        (path.replace("{", "{{").replace("}", "}}"), method)
        for path, operations in document()["paths"].items()
        for method in operations
    }
    assert len(served) > 7
    assert described == served


def test_every_route_key_has_its_row() -> None:
    """The table of keys has all that are read, and no other."""
    page = (_DOCS / "reference" / "routes.md").read_text()
    rows = re.findall(r"^\| `(\w+)`", page.partition("\n## Keys\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert list(conf._Reading(Path("proxy.conf.json"))._keys) == rows


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, one in getattr(command, "commands", {}).items():
        yield f"{name} {word}", one
        yield from _commands(one, f"{name} {word}")


@pytest.mark.parametrize(("name", "command"), [*_commands(typer.main.get_command(app), NAME)])
def test_the_help_of_every_command_teaches(name: str, command: Any) -> None:
    """It has an example that can be typed, whose options exist, and says what each option does."""
    examples = re.findall(rf"^- (?:\w+=\S+ )?({NAME} .*)$", command.help, re.MULTILINE)
    own = [example for example in examples if name in example]
    assert own, command.help
    options = {option for one in command.params for option in one.opts}
    assert set(re.findall(r"(?<= )--?[a-z-]*[a-z]", " ".join(own))) <= options
    assert [] == [one.name for one in command.params if not one.help and one.name != "help"]


def test_the_changelog_names_what_is_new() -> None:
    """Every setting that the original did not have is listed as added, and nothing else is."""
    original = (
        "SERVER_HOST SERVER_PORT API_HOST API_PORT CACHE_REFRESH_TIME_S STORAGE_DIR LOG_LEVEL LOG_TIMEZONE"
    )
    syslog = "LOG_SYSLOG_HOST LOG_SYSLOG_PORT LOG_SYSLOG_APP_NAME"
    changelog = (_ROOT / "CHANGELOG.md").read_text()
    added = set(re.findall(r"`([A-Z_]{4,})`", changelog.partition("Added:")[2]))
    assert {name.upper() for name in FIELDS} - set(f"{original} {syslog}".split()) == added
