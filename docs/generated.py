"""The pages of the reference that are made from the code: `make reference` writes them.

They are committed, so that they can be read anywhere; `tests/test_reference.py` fails when one is not what
the code says.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.control.admin.sums import MOST_INSTANCES
from visa_jupyter_proxy.settings import FIELDS, PREFIX, ConfigurationError, Settings, load

DIRECTORY: Final = Path(__file__).parent

_NOTE: Final = "<!-- Made by `make reference` from {}: change it there. -->\n\n"


_SETTINGS: Final = f"""\
# Settings

From the environment or from `.env` in the working directory; the environment wins. Every name has the prefix
`{PREFIX}`. An empty value means unset, lists are separated by commas. Any setting can be
read from a file instead, such as a secret of Docker or Kubernetes:
`{PREFIX}<NAME>_FILE=/run/secrets/...`. A mistake stops the start, with status 2 and what to write
instead; `visa-jupyter-proxy check` says the same without starting. Other names with the prefix get a
warning that names the nearest.

| setting | default | meaning | write |
|---|---|---|---|
"""


def settings_page() -> str:
    """Make the page of all settings: what the code says of each, and what it takes."""
    rows = (
        f"| `{name.upper()}` | {_default(name)} | {_meaning(name)} | {allowed(name)} |" for name in FIELDS
    )
    return _NOTE.format("settings/settings.py") + _SETTINGS + "".join(f"{row}\n" for row in rows)


def allowed(name: str) -> str:
    """Return what may be written, as the mistake says that someone gets who wrote something else."""
    try:
        load({PREFIX + name.upper(): "\0"}, DIRECTORY)
    except ConfigurationError as error:
        return re.sub(r"\bwrite (?:the )?", "", error.mistakes[0].partition(" cannot be used: ")[2])
    return "any text"


_METRICS: Final = f"""\
# Metrics

`GET /metrics` on the admin listener, in the format of Prometheus or of OpenMetrics, as `Accept` says: all
workers together, with what those counted that have ended since. It is as of a second ago at most. Every name
begins with `{metrics.PREFIX}`. The buckets of histograms end at
{", ".join(f"{bound:g}" for bound in metrics.BOUNDS)} s and infinity.

No label has unbounded values: other methods than GET, HEAD, OPTIONS, POST, PUT, PATCH and DELETE are `other`,
a status that is not registered is its class (`4xx`). There are no users, and no instances unless
`METRICS_PER_INSTANCE` is on: then the {MOST_INSTANCES} that came last.

| name | kind | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    """Make the page of all metrics."""
    rows = (
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n"
        for one in metrics.METRICS.values()
    )
    return _NOTE.format("metrics.py") + _METRICS + "".join(rows)


def _meaning(name: str) -> str:
    return str(Settings.model_fields[name].description).replace("|", "\\|")


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    return f"`{default}`" if default else ""


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/metrics.md": metrics_page,
    "reference/settings.md": settings_page,
}
"""Each generated page, by its place in `docs/`."""


def main() -> None:
    """Write all pages, and say which have changed."""
    for place, page in PAGES.items():
        path, text = DIRECTORY / place, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"docs/{place}\n")


if __name__ == "__main__":
    main()
