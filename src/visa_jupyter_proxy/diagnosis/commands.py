"""The commands and their options."""

import asyncio
import getpass
import ipaddress
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from visa_jupyter_proxy import console, logs, progress, settings
from visa_jupyter_proxy import routes as routing
from visa_jupyter_proxy.diagnosis.findings import Finding

_ON_THE_COMMAND_LINE: Final = (
    "is no file that can be read: write the token into a file, or - and give it on standard input; "
    "what stands on a command line can be read by every user of this machine"
)


def check(as_json: console.AsJson = False) -> None:
    """See whether everything is there that the proxy needs. Changes nothing, also while a proxy runs.

    Looks at the settings, the routes, the ports, the VISA API, its clock, keys and the journal, and says of
    each what to change. VISA is asked with a token that is none, so nothing happens there.

    Exit status: 0 the proxy can serve (there may be warnings), 1 something that it needs cannot be reached
    or used, 2 a setting, a route or a page of PAGES_DIR is wrong.

    - visa-jupyter-proxy check

    - visa-jupyter-proxy check --json
    """
    from visa_jupyter_proxy import error_pages  # noqa: PLC0415 -- only this command needs jinja2

    try:
        chosen, warnings = settings.load()
        services = routing.load(chosen.config_path())
        error_pages.load(chosen.pages_dir, chosen.visa_url)
    except settings.ConfigurationError as error:
        _tell([Finding("settings", "wrong", mistake) for mistake in error.mistakes], as_json=as_json)
        raise typer.Exit(console.Status.MISTAKEN) from None
    found = [Finding("settings", "warning", warning) for warning in warnings]
    logs.configure("crit", chosen.log_timezone)  # what goes wrong is among the findings
    found = asyncio.run(_found(chosen, services, found, as_json=as_json))
    raise typer.Exit(int(any(finding.verdict == "wrong" for finding in found)))


async def _found(
    chosen: settings.Settings, services: Sequence[routing.Route], found: list[Finding], *, as_json: bool
) -> list[Finding]:
    from visa_jupyter_proxy.diagnosis.checking import look  # noqa: PLC0415 -- only this command needs a database

    if not as_json:
        _tell(found)
    what = f"asking VISA at {chosen.api_base_url}, {chosen.api_timeout_s:g} s at most, and the journal"
    with progress.told(what) as far:
        async for finding in look(chosen, services):
            found.append(finding)
            if not as_json:
                with far.aside():
                    _tell([finding])
    if as_json:
        _tell(found, as_json=True)
    return found


def _tell(found: list[Finding], *, as_json: bool = False) -> None:
    from visa_jupyter_proxy.diagnosis.telling import finding_line  # noqa: PLC0415 -- only commands need words

    if as_json:
        is_well = all(finding.verdict != "wrong" for finding in found)
        console.print_json({"ok": is_well, "findings": msgspec.to_builtins(found)})
        return
    for finding in found:
        typer.echo(finding_line(finding))


def routes(as_json: console.AsJson = False) -> None:
    """Show the services of proxy.conf.json as they were read, in the order in which they are looked at.

    Exit status: 0, or 2 when a setting or a route is wrong.

    - visa-jupyter-proxy routes
    """
    from visa_jupyter_proxy.diagnosis.telling import service_lines  # noqa: PLC0415 -- only commands need it

    with console.mistakes_told():
        chosen, _ = settings.load()
        services = routing.load(chosen.config_path())
    if as_json:
        console.print_json({"file": str(chosen.config_path()), "services": msgspec.to_builtins(services)})
        return
    typer.echo(f"{chosen.config_path()}\n")
    for line in service_lines(services):
        typer.echo(line)


def explain(
    url: Annotated[str, typer.Argument(help="The address, or its path: /jupyter/1234/lab.")],
    *,
    websocket: Annotated[
        bool, typer.Option("--websocket", "-w", help="As a browser opens a WebSocket.")
    ] = False,
    method: Annotated[str, typer.Option(help="Another method than GET.")] = "GET",
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", help="A field of the request, 'Name: value', as often as you like."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with an access token to ask VISA with; - is standard input."),
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option(help="Address that the connection comes from; else that of a trusted proxy in front."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Say what becomes of a request: which service takes it and why no other, where it goes, what is changed.

    The request goes through a worker's own parts; only the instance gets none of it. With --token VISA is
    asked as a worker asks it, which counts as a visit to the instance, and its port is connected to once.
    With TRACING=on a worker writes `traceparent`, too, which is not shown here.

    - visa-jupyter-proxy explain /jupyter/1234/lab

    - visa-jupyter-proxy explain -w /jupyter/1234/api/kernels/K/channels?session_id=S

    - visa-jupyter-proxy explain https://visa.example.org/jupyter/1234/lab --token - (asks for the token)

    Exit status: 0 it is forwarded, 1 it is refused, 2 a setting, a route or an option is wrong.
    """
    from visa_jupyter_proxy.diagnosis.explaining import Question  # noqa: PLC0415 -- only this command needs a worker
    from visa_jupyter_proxy.diagnosis.explaining import explain as explained  # noqa: PLC0415 -- likewise
    from visa_jupyter_proxy.diagnosis.telling import explanation_lines  # noqa: PLC0415 -- likewise

    with console.mistakes_told():
        chosen, _ = settings.load()
        services = routing.load(chosen.config_path())
    logs.configure("warning", chosen.log_timezone)
    question = Question(url, websocket, method.upper(), _fields(header or ()), _token(token), _address(peer))
    try:
        with progress.told(f"asking VISA at {chosen.api_base_url} and connecting to the instance"):
            told = asyncio.run(explained(question, chosen.for_worker(), services))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        console.print_json(msgspec.to_builtins(told))
    else:
        typer.echo("\n".join(explanation_lines(told)))
    raise typer.Exit(int(told.refused is not None))


def _fields(written: Sequence[str]) -> tuple[tuple[str, str], ...]:
    fields = [(name.strip(), value.strip()) for name, _, value in (field.partition(":") for field in written)]
    if not all(name for name, _ in fields) or any(":" not in field or "\n" in field for field in written):
        raise typer.BadParameter("write a field as 'Name: value'", param_hint="--header")
    return tuple(fields)


def _token(where: str | None) -> str | None:
    if where is None:
        return None
    if where == "-":
        text = getpass.getpass("Access token: ") if sys.stdin.isatty() else sys.stdin.read()
    else:
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise typer.BadParameter(_ON_THE_COMMAND_LINE, param_hint="--token") from None
    text = re.sub(r"(?i)^bearer +", "", text.strip())
    if not re.fullmatch(r"[!-~]+", text):
        raise typer.BadParameter("there is no token: write it, and nothing else", param_hint="--token")
    return text


def _address(peer: str | None) -> str | None:
    try:
        return None if peer is None else str(ipaddress.ip_address(peer))
    except ValueError:
        raise typer.BadParameter("write an IP address", param_hint="--peer") from None
