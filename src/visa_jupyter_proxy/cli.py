"""The command `visa-jupyter-proxy`."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visa_jupyter_proxy import __version__, console, diagnosis, progress, routes, sessions, settings

if TYPE_CHECKING:
    from visa_jupyter_proxy.control.caller import Answer
    from visa_jupyter_proxy.control.configuration import Configuration

_HELP = """The authenticated reverse proxy of VISA. Without a command it serves.

It takes `/jupyter/1234/lab`, asks the VISA API whether the owner of the access token may use instance
1234, and forwards HTTP and WebSockets to that machine. Settings are variables of the environment, or of
`.env` in the working directory; the services are those of `proxy.conf.json`. To begin with:

- `check` says whether all is there that it needs, and what to change if it is not;

- `explain /jupyter/1234/lab` says what becomes of a request, and why;

- `demo` shows all of it on one machine, without VISA.
"""

app = typer.Typer(
    help=_HELP,
    epilog=console.STATUSES,
    rich_markup_mode="markdown",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"visa-jupyter-proxy {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 -- read by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Serve when no command is given, as the original does."""
    if context.invoked_subcommand is None:
        serve(take_over=False)


@app.command()
def serve(
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Take over from the process that runs on the same STORAGE_DIR, if there is one: it hands "
            "its listening socket over, and drains as soon as this one serves.",
        ),
    ] = False,
) -> None:
    """Run the proxy until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

    Settings come from the environment and from `.env` in the working directory, the services from
    `proxy.conf.json`. A second SIGTERM or SIGINT ends it at once. Exit status: 0 stopped as told, 1 cannot
    start, 2 a setting or a route is wrong, 130 or 143 ended at once.

    - VISA_JUPYTER_PROXY_API_URL=http://visa:8086/api visa-jupyter-proxy serve

    - visa-jupyter-proxy serve --take-over (a new version, beside the one that runs)
    """
    from visa_jupyter_proxy.control.control import run  # noqa: PLC0415 -- only this command needs a database
    from visa_jupyter_proxy.control.listener import CannotStart  # noqa: PLC0415 -- likewise

    try:
        with console.mistakes_told():
            run(_configuration, take_over=take_over)
    except CannotStart as error:
        console.fail(error)


def _configuration() -> "Configuration":
    from visa_jupyter_proxy import error_pages  # noqa: PLC0415 -- only commands that serve need jinja2
    from visa_jupyter_proxy.control.configuration import Configuration  # noqa: PLC0415 -- likewise

    chosen, warnings = settings.load()
    file = chosen.config_path()
    services = routes.load(file)
    pages = error_pages.load(chosen.pages_dir, chosen.visa_url)
    return Configuration(chosen, warnings, file, services, pages)


@app.command()
def reload(as_json: console.AsJson = False) -> None:
    """Have the process that runs on the same STORAGE_DIR read its configuration again, as SIGHUP does.

    It uses its own environment, its `.env` and its files. Exit status: 0 it goes by it now, 1 no process
    answers there, or it is stopping, 2 there is a mistake, and it goes by the old one.

    - visa-jupyter-proxy check && visa-jupyter-proxy reload
    """
    from visa_jupyter_proxy.control.caller import Caller, NoAnswer  # noqa: PLC0415 -- only this command asks

    with console.mistakes_told():
        chosen, _ = settings.load()
    try:
        with progress.told("waiting for the process to read its configuration"):
            answer = Caller.ask_for_reload(chosen.storage_dir)
    except NoAnswer as error:
        console.fail(error)
    if answer.is_stopping:
        console.fail(f"process {answer.pid} on {chosen.storage_dir} is stopping: it has not reloaded")
    if as_json:
        names = ("pid", "changed", "at_the_next_start", "warnings", "mistakes")
        console.print_json({name: getattr(answer, name) for name in names})
    else:
        _tell(answer)
    raise typer.Exit(console.Status.MISTAKEN if answer.mistakes else console.Status.DONE)


def _tell(answer: "Answer") -> None:
    for mistake in answer.mistakes:
        console.warn(mistake)
    if not answer.mistakes:
        typer.echo(f"Changed: {', '.join(answer.changed)}." if answer.changed else "Nothing has changed.")
    if answer.at_the_next_start:
        typer.echo(f"Changes at the next start: {', '.join(answer.at_the_next_start)}.")
    for warning in answer.warnings:
        console.warn(warning)


for command in (diagnosis.check, diagnosis.explain, diagnosis.routes):
    app.command()(command)
app.add_typer(sessions.app, name="sessions")


@app.command()
def demo(
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port of the proxy; another one is taken when it is busy."),
    ] = 8088,
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the stand-in VISA; likewise.")
    ] = 8086,
    logs_to: Annotated[
        Path | None, typer.Option("--logs", help="Directory in which the output of all parts remains.")
    ] = None,
    as_json: console.AsJson = False,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the proxy, such as `RECHECK_S=5`."),
    ] = None,
) -> None:
    """Start a stand-in VISA, a JupyterLab for each instance, and the proxy; Ctrl-C ends it all.

    Needs the extra [demo], which is JupyterLab. It prints the links to open, and keeps nothing.

    - visa-jupyter-proxy demo

    - visa-jupyter-proxy demo --set RECHECK_S=5 --set ACCESS_LOG=all --logs /tmp/demo
    """
    from visa_jupyter_proxy.demo import run  # noqa: PLC0415 -- only this command needs the extra [demo]

    chosen = dict(map(_setting, changed or ()))
    raise typer.Exit(run(port=port, api_port=api_port, logs=logs_to, as_json=as_json, settings=chosen))


def _setting(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    if not value:
        raise typer.BadParameter("write NAME=VALUE", param_hint="--set")
    name = name.removeprefix(settings.PREFIX)
    known = [field.upper() for field in settings.FIELDS]
    if name not in known:
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
        raise typer.BadParameter(f"{name or pair} is no setting. Is {near} meant?", param_hint="--set")
    return name, value


def main() -> None:
    """Run the command line."""
    with console.output():
        app(prog_name="visa-jupyter-proxy")


if __name__ == "__main__":
    main()
