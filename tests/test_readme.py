"""The README's tables say what the code does."""

import re
from pathlib import Path

from visa_jupyter_proxy.routes import conf
from visa_jupyter_proxy.settings import FIELDS, Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def _table(heading: str) -> dict[str, str]:
    """Return name and default of each row of the table under `heading`, without the backticks."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): default.strip(" `") for name, default in rows}


def test_every_setting_is_there_with_its_default() -> None:
    """The table of settings has all of them, in their order of meaning, and no other."""
    defaults = {name.upper(): Settings.model_fields[name].default or "" for name in FIELDS}
    assert defaults == _table("Settings")


def test_every_route_key_is_there() -> None:
    """The table of routes has every key that is read, and no other."""
    assert set(conf._Reading(Path("proxy.conf.json"))._keys) == set(_table("Routes"))


def test_the_changelog_names_what_is_new() -> None:
    """Every setting that the original did not have is listed as added, and nothing else is."""
    original = (
        "SERVER_HOST SERVER_PORT API_HOST API_PORT CACHE_REFRESH_TIME_S STORAGE_DIR LOG_LEVEL LOG_TIMEZONE"
    )
    syslog = "LOG_SYSLOG_HOST LOG_SYSLOG_PORT LOG_SYSLOG_APP_NAME"
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    added = set(re.findall(r"`([A-Z_]{4,})`", changelog.partition("Added:")[2]))
    assert {name.upper() for name in FIELDS} - set(f"{original} {syslog}".split()) == added
