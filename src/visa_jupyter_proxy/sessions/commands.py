"""The commands and their options."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from visa_jupyter_proxy import console, logs, progress, settings
from visa_jupyter_proxy.identifiers import LARGEST_INSTANCE
from visa_jupyter_proxy.sessions.layouts import Format, Row, lines
from visa_jupyter_proxy.sessions.times import Zone

if TYPE_CHECKING:
    from visa_jupyter_proxy.sessions.answers import Answers

_ON_A_SCREEN: Final = 200
"""Lines of a table when nothing else is said."""

_HELP: Final = """Show the notebook sessions of the journal, the newest first, or do something with them.

One that is open has lasted until now; idle is since the user's last message. A table has durations as hours,
minutes and seconds, JSON and CSV have them in seconds. `up` is from the browser, `down` to it. Times are in
LOG_TIMEZONE, or in the system's own zone. `told` says whether VISA knows: `waiting` is on its way, `no` and
`refused` had no token that VISA takes. `connections`, in JSON and CSV, are
all that a session has ever had; in `/api/v1/sessions` they are those that are open now.

- visa-jupyter-proxy sessions --open

- visa-jupyter-proxy sessions --since 24h --instance 1234

- visa-jupyter-proxy sessions --since 2025-01-01 --until 2026-01-01 --format csv
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=False,
)


class By(StrEnum):
    """What a line of a summary stands for."""

    DAY = "day"
    USER = "user"
    INSTANCE = "instance"


_Since = Annotated[
    str | None,
    typer.Option(help="Those that began then or later: 2025-01-31, 2025-01-31T14:00, or 24h, 7d, 4w ago."),
]
_Until = Annotated[str | None, typer.Option(help="Those that began before; written likewise.")]
_Form = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="How it is written; a table unless you say so. --json is json.",
        **console.one_of(Format),
    ),
]


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    *,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    since: _Since = None,
    until: _Until = None,
    user: Annotated[
        str | None,
        typer.Option(parser=console.text, help="Only those of this user (the token's `sub`)."),
    ] = None,
    instance: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_INSTANCE, help="Only those on this instance.")
    ] = None,
    form: _Form = None,
    as_json: console.AsJson = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="At most so many; 0 is all. A table has 200 unless you say so."),
    ] = None,
) -> None:
    """Show the notebook sessions of the journal; `_HELP` says so to people."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from visa_jupyter_proxy.control.journal.reading import Wanted  # noqa: PLC0415 -- only commands need a database
    from visa_jupyter_proxy.sessions.answers import COLUMNS, FOR_PEOPLE  # noqa: PLC0415 -- likewise

    layout = _layout(form, as_json=as_json)
    is_table = layout is Format.TABLE
    most = limit if limit is not None else _ON_A_SCREEN if is_table else 0
    with _answers() as (chosen, asked), progress.told("reading the journal", "sessions") as far:
        since_, until_ = _period(chosen, since, until)
        wanted = Wanted(since=since_, until=until_, user=user, instance=instance, only_open=only_open)
        # One more, to see whether there is more.
        rows = asked.rows(wanted, most + 1 if most else None)
        _print(_first(rows, most, far), FOR_PEOPLE if is_table else COLUMNS, layout, far)


@app.command()
def summary(
    by: Annotated[By, typer.Option(help="What a line stands for.", **console.one_of(By))] = By.DAY,
    since: _Since = None,
    until: _Until = None,
    form: _Form = None,
    as_json: console.AsJson = False,
) -> None:
    """Sum the sessions up, as for a yearly report.

    A session counts for the day on which it began, in LOG_TIMEZONE. Users and instances are those that had a
    session; a duration is the sum of all.

    - visa-jupyter-proxy sessions summary --since 4w

    - visa-jupyter-proxy sessions summary --by user --since 2025-01-01 --until 2026-01-01 --format csv
    """
    from visa_jupyter_proxy.sessions.answers import SUMMED_UP  # noqa: PLC0415 -- only commands need a database

    layout = _layout(form, as_json=as_json)
    with _answers() as (chosen, asked), progress.told("summing up") as far:
        rows = asked.summary(by.value, *_period(chosen, since, until))
        columns = [name for name in SUMMED_UP if name != f"{by}s"]
        _print(rows, [by.value, *columns], layout, far)


@app.command()
def prune(
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Delete what was closed so many days ago; else SESSION_RETENTION_DAYS."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Delete old sessions from the journal, also while a proxy runs.

    A proxy with SESSION_RETENTION_DAYS does so by itself, once a day. What is open, or not reported to VISA
    yet, stays, however old it is.

    - visa-jupyter-proxy sessions prune --days 400
    """
    with _answers() as (chosen, asked):
        least = days if days is not None else chosen.session_retention_days
        if least is None:
            raise typer.BadParameter("set VISA_JUPYTER_PROXY_SESSION_RETENTION_DAYS, or write --days")
        with progress.told("deleting old sessions", "are deleted") as far:
            deleted = asked.prune(least, far.add)
    _tell(f"{deleted} sessions were deleted", {"deleted": deleted}, as_json=as_json)


@app.command()
def anonymise(
    user: Annotated[
        str,
        typer.Option(parser=console.text, help="Whom to forget: the token's `sub`, or as the list shows it."),
    ],
    as_json: console.AsJson = False,
) -> None:
    """Take user, instance, kernel and session ids out of a user's sessions; times and figures stay.

    Sessions that are open, or of which VISA does not know yet, are left: do it again later.
    Exit status 1 says that there are such.

    - visa-jupyter-proxy sessions anonymise --user 7c1f0d9a-1111-4a2b-8e8e-0242ac120002
    """
    with _answers() as (_, asked), progress.told("anonymising", "sessions are done") as far:
        done, left = asked.anonymise(user, far.add)
    _tell(f"{done} sessions were anonymised", {"anonymised": done, "left": left}, as_json=as_json)
    if left:
        console.fail(f"{left} sessions still have this user: they are open, or not reported yet")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The new file.")], as_json: console.AsJson = False
) -> None:
    """Copy the journal to a file, also while a proxy runs. PostgreSQL has pg_dump for that.

    The copy has one state of everything, is checked, and can be read by its owner alone. To go back to it:
    stop the proxy, and put it in the place of journal.sqlite3 in STORAGE_DIR, whose -wal and -shm go.

    - visa-jupyter-proxy sessions backup /backup/journal-2025-12-31.sqlite3
    """
    from visa_jupyter_proxy.control.journal.backup import so_far  # noqa: PLC0415 -- only commands need a database

    with _answers() as (_, asked), progress.told("copying the journal", "MB") as far:
        far.watch(lambda: so_far(file) // 1_000_000)
        asked.backup(file)
    _tell(f"the journal was copied to {file}", {"file": str(file)}, as_json=as_json)


@app.command()
def export(
    *,
    legacy: Annotated[bool, typer.Option("--legacy", help="In the form of visa-jupyter-proxy 3.5.")] = False,
    to: Annotated[Path | None, typer.Option(help="The new file; else where 3.5 looks for it.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Write the file of visa-jupyter-proxy 3.5, for a way back to it: stop this proxy first.

    In it are the sessions that VISA may believe open: 3.5 closes them when it starts.

    - visa-jupyter-proxy sessions export --legacy
    """
    if not legacy:
        raise typer.BadParameter("write --legacy; for JSON and CSV see `sessions --format`")
    with _answers() as (_, asked), progress.told("looking for what VISA believes open"):
        path, count = asked.export(to)
        running = asked.writers()
    told = {"file": str(path), "sessions": count, "running": [{"node": n, "pid": pid} for n, pid in running]}
    _tell(f"{count} sessions were written to {path}", told, as_json=as_json)
    for node, pid in running:
        console.warn(
            f"a proxy still runs on {node} (process {pid}): what begins and ends from now on is not in the "
            "file, and 3.5 would close what goes on: stop it, remove the file, and do this again"
        )


# --- what they share --------------------------------------------------------------------------------


@contextmanager
def _answers() -> Iterator[tuple[settings.Settings, "Answers"]]:
    """Open the journal. Exit status: 1 it cannot be used, 2 a setting is wrong."""
    from visa_jupyter_proxy.sessions.answers import CannotAnswer, answers  # noqa: PLC0415 -- likewise

    with console.mistakes_told():
        chosen, _ = settings.load()
    logs.configure("warning", chosen.log_timezone)
    try:
        with answers(chosen) as asked:
            yield chosen, asked
    except CannotAnswer as error:
        console.fail(error)


def _layout(form: Format | None, *, as_json: bool) -> Format:
    if as_json and form not in (None, Format.JSON):
        raise typer.BadParameter(f"write --json or --format {form}, not both", param_hint="--json")
    return Format.JSON if as_json else form or Format.TABLE


def _or_word(rows: Iterable[Row], form: Format) -> Iterator[Row]:
    """Pass the rows on; say that there are none, beside a table that would be a bare head."""
    rows = iter(rows)
    first = next(rows, None)
    if first is not None:
        yield first
        yield from rows
    elif form is Format.TABLE:
        typer.echo("There are no such sessions.", err=True)


def _period(chosen: settings.Settings, since: str | None, until: str | None) -> tuple[float, float]:
    """Read from when to when; a period in which nothing can be is a mistake."""
    zone, now = Zone(chosen.log_timezone), time.time()
    begins = 0.0 if since is None else _moment(zone, since, now, "--since")
    ends = math.inf if until is None else _moment(zone, until, now, "--until")
    if begins >= ends and since is not None and until is not None:
        raise typer.BadParameter(
            f"{until} is not after --since {since}: nothing is between. Write a later one.",
            param_hint="--until",
        )
    return begins, ends


def _moment(zone: Zone, text: str, now: float, option: str) -> float:
    try:
        return zone.moment(text, now)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def _refuse_options(context: typer.Context) -> None:
    """Refuse what stands before the name of a command, where it would be without effect."""
    sources = (context.get_parameter_source(name) for name in context.params)
    if any(source is not None and source.name != "DEFAULT" for source in sources):
        raise typer.BadParameter(f"write the options after {context.invoked_subcommand}, not before it")


def _first(rows: Iterable[Row], most: int, far: progress.Progress) -> Iterator[Row]:
    """Pass `most` rows on, 0 is all; say so when there are more."""
    for number, row in enumerate(rows):
        if most and number == most:
            with far.aside():
                typer.echo(f"The newest {most} are shown; --limit 0 shows all.", err=True)
            return
        yield row


def _print(rows: Iterable[Row], columns: Iterable[str], form: Format, far: progress.Progress) -> None:
    written = lines(far.counting(_or_word(rows, form)), [*columns], form)
    first = next(written)
    if sys.stdout.isatty():
        far.end()  # who sees the rows sees how it goes on
    sys.stdout.writelines(f"{line}\n" for line in chain([first], written))


def _tell(words: str, value: object, *, as_json: bool) -> None:
    if as_json:
        console.print_json(value)
    else:
        typer.echo(words)
