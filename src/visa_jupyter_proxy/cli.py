"""The command `visa-jupyter-proxy`."""

from pathlib import Path
from typing import Annotated

import typer

from visa_jupyter_proxy import __version__, diagnosis, logs, mistakes, routes, sessions, settings

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
        serve()


@app.command()
def serve() -> None:
    """Run the proxy until SIGTERM or SIGINT.

    Settings come from the environment and from `.env` in the working directory, the services from
    `proxy.conf.json`. Exit status: 0 stopped as told, 1 cannot start, 2 a setting or a route is wrong.
    """
    from visa_jupyter_proxy import error_pages  # noqa: PLC0415 -- only commands that serve need jinja2

    with mistakes.told():
        chosen, warnings = settings.load()
        services = routes.load(chosen.config_path())
        pages = error_pages.load(chosen.pages_dir, chosen.visa_url)
    worker = chosen.for_worker()
    logs.configure(
        worker.log_level,
        worker.log_timezone,
        worker.log_syslog_host,
        worker.log_syslog_port,
        worker.log_syslog_app_name,
    )
    for warning in warnings:
        logs.get().warning(warning)
    from visa_jupyter_proxy.control.control import CannotStart, run  # noqa: PLC0415 -- only this command needs a database

    try:
        run(chosen, services, pages)
    except CannotStart as error:
        typer.echo(f"visa-jupyter-proxy: {error}", err=True)
        raise typer.Exit(1) from None


for command in (diagnosis.check, diagnosis.explain, diagnosis.routes):
    app.command()(command)
app.add_typer(sessions.app, name="sessions")


@app.command()
def demo(
    port: Annotated[
        int, typer.Option(help="Port of the proxy; another one is taken when it is busy.")
    ] = 8088,
    api_port: Annotated[int, typer.Option(help="Port of the stand-in VISA; likewise.")] = 8086,
    logs_to: Annotated[
        Path | None, typer.Option("--logs", help="Directory in which the output of all parts remains.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the links as one line of JSON.")] = False,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the proxy, such as `RECHECK_S=5`."),
    ] = None,
) -> None:
    """Start a stand-in VISA, a JupyterLab for each instance, and the proxy; Ctrl-C ends it all."""
    from visa_jupyter_proxy.demo import run  # noqa: PLC0415 -- only this command needs the extra [demo]

    pairs = dict(pair.partition("=")[::2] for pair in changed or ())
    if not all(pairs.values()):
        raise typer.BadParameter("write NAME=VALUE", param_hint="--set")
    raise typer.Exit(run(port=port, api_port=api_port, logs=logs_to, as_json=as_json, settings=pairs))


def main() -> None:
    """Run the command line."""
    app(prog_name="visa-jupyter-proxy")


if __name__ == "__main__":
    main()
