"""The pages of the reference that are made from the code: `make reference` writes them.

They are committed, so that they can be read anywhere; `tests/test_reference.py` fails when one is not what
the code says.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import typer
from typer.cli import get_docs_for_click

import visa_jupyter_proxy
from docs.api import api_page
from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.cli import app
from visa_jupyter_proxy.control.admin.sums import MOST_INSTANCES
from visa_jupyter_proxy.diagnosis.advice import ADVICE
from visa_jupyter_proxy.errors import ClientGone, ProxyError
from visa_jupyter_proxy.logs import LEVELS
from visa_jupyter_proxy.settings import FIELDS, PREFIX, RELOADABLE, ConfigurationError, Settings, load

DIRECTORY: Final = Path(__file__).parent

SOURCE: Final = Path(visa_jupyter_proxy.__file__).parent

NAME: Final = "visa-jupyter-proxy"

_NOTE: Final = "<!-- Made by `make reference` from {}: change it there. -->\n\n"


_SETTINGS: Final = f"""\
# Settings

From the environment or from `.env` in the working directory; the environment wins. Every name has the prefix
`{PREFIX}`. An empty value means unset, lists are separated by commas. Any setting can be
read from a file instead, such as a secret of Docker or Kubernetes:
`{PREFIX}<NAME>_FILE=/run/secrets/...`. A mistake stops the start, with status 2 and what to write
instead; `visa-jupyter-proxy check` says the same without starting. Other names with the prefix get a
warning that names the nearest.

A [reload](../operating/reloading.md) changes those that say *Reload*; the others change at a start.

| setting | default | meaning, and what to write |
|---|---|---|
"""


def settings_page() -> str:
    """Make the page of all settings: what the code says of each, and what it takes."""
    rows = (
        f"| `{name.upper()}` | {_default(name)} | {_meaning(name)}{_write(name)}{_changes_at(name)} |"
        for name in FIELDS
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


def _write(name: str) -> str:
    what = allowed(name)
    return f"<br>Write {what}." if what else ""


def _changes_at(name: str) -> str:
    return " *Reload.*" if name in RELOADABLE else ""


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    return f"`{default}`" if default else ""


_ERRORS: Final = """\
# Errors

`{"error": "...", "message": "...", "requestId": "..."}`, with `requestId` for the log, where `reason` is the
same as `error`; or a [page](../pages.md) where a browser navigates. The message is a fixed text: no address,
no exception and nothing of the request is in it. What else there is to know is `detail` in the log.

"""


def errors_page() -> str:
    """Make the page of all errors: status, what is told, what it means, what an operator can do."""
    kinds = [kind for kind in ADVICE if kind is not ClientGone]
    parts = [
        f"## {kind.status} `{kind.error}`\n\n> {kind.message}\n\n{_first_sentences(kind)}\n\n{ADVICE[kind]}\n"
        for kind in sorted(kinds, key=lambda kind: kind.status)
    ]
    return _NOTE.format("errors.py and diagnosis/advice.py") + _ERRORS + "\n".join(parts)


def _first_sentences(kind: type[ProxyError]) -> str:
    return " ".join((kind.__doc__ or "").split())


def commands_page() -> str:
    """Make the page of all commands, as typer does from what `--help` says."""
    root = typer.main.get_command(app)
    text = get_docs_for_click(obj=root, ctx=typer.Context(root), name=NAME, title="Commands")
    return _NOTE.format("the commands' own --help") + text.rstrip() + "\n"


_LOG: Final = """\
# Lines of the log

One line for an event: key=value on a terminal, JSON elsewhere, and the same to syslog where that is set.
`timestamp`, `level` and `event` are in each; the levels are those of syslog. Lines of other libraries have
`logger`. What the fields of `request` and `tunnel` mean is in [behaviour](../behaviour.md#the-log), those of
`state` [there too](../behaviour.md#start-and-stop).

| event | level | fields | said in |
|---|---|---|---|
"""


def log_page() -> str:
    """Make the page of all that is logged, from the calls in the code."""
    rows = sorted({row for path in sorted(SOURCE.rglob("*.py")) for row in _logged(path)})
    return _NOTE.format("the code that logs") + _LOG + "".join(rows)


def _logged(path: Path) -> Iterator[str]:
    place = path.relative_to(SOURCE).with_suffix("")
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not is_log(call.func):
            continue
        level = call.func.attr if isinstance(call.func, ast.Attribute) else "by what happened"
        fields = [f"`{one.arg}`" for one in call.keywords if one.arg not in (None, "exc_info")]
        for event in _events(call.args[0]):
            yield f"| {event} | {level} | {', '.join(fields)} | `{place}` |\n"


_CALL: Final = re.compile(rf"(?:logs\.get\(.*\)|_?log|self\._log)\.(?:{'|'.join(LEVELS)})|_teller\(.*\)")
"""`logs.get().warning`, `_log.error`; or `_teller(...)`, which chooses the level."""


def is_log(func: ast.expr) -> bool:
    """Whether this is what logs, where it is called."""
    return _CALL.fullmatch(ast.unparse(func)) is not None


def _events(text: ast.expr) -> Iterator[str]:
    match text:
        case ast.Constant():
            yield str(text.value)
        case ast.IfExp():
            yield from _events(text.body)
            yield from _events(text.orelse)
        case ast.JoinedStr():
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "..." for part in text.values
            )
        case _:
            yield f"*a {ast.unparse(text)}, in its own words*"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/api.md": lambda: _NOTE.format("control/admin/openapi.py") + api_page(),
    "reference/commands.md": commands_page,
    "reference/errors.md": errors_page,
    "reference/log.md": log_page,
    "reference/metrics.md": metrics_page,
    "reference/settings.md": settings_page,
}
"""Each generated page, by its place in `docs/`."""


def main(arguments: list[str]) -> int:
    """Write the pages that have changed, or, with `--check`, say which would; status 1 if there are any."""
    is_check = arguments == ["--check"]
    changed = [place for place, page in PAGES.items() if not _is_written(DIRECTORY / place, page())]
    for place in changed:
        if is_check:
            sys.stderr.write(f"docs/{place} is not what the code says: run `make reference`\n")
        else:
            (DIRECTORY / place).write_text(PAGES[place](), encoding="utf-8")
            sys.stdout.write(f"docs/{place}\n")
    return int(is_check and bool(changed))


def _is_written(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
