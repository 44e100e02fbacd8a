"""What all commands have in common: how they take text and print JSON, and with what status they end."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Final, NoReturn

import typer

from visa_jupyter_proxy.routes import ConfigurationError

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]


class Status(IntEnum):
    """With what a command ends by itself; `STATUSES` says so to people."""

    DONE = 0
    FAILED = 1
    MISTAKEN = 2
    """As typer ends for a wrong option."""


STATUSES: Final = """Exit status, of every command:

- 0: it is done, and the answer is yes

- 1: it cannot be done, or the answer is no

- 2: what was written cannot be used: a setting, a route, a page, an option

- 130, 143: ended at once by SIGINT (Ctrl-C) or SIGTERM. `serve` and `demo` take the first as the order to
  stop, and end with 0; a second one ends `serve` at once
"""


_NOT_PRINTED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""A full disk and the like; a reader that has left (EPIPE) is typer's to deal with."""


@contextmanager
def output() -> Iterator[None]:
    """Print what is printed meanwhile, and escape what cannot be encoded; where nothing is kept, say so."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # whoever has started us has closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 -- as long as we live
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _NOT_PRINTED or error.filename is not None:
            raise
        # What is left goes nowhere: Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warn(f"the answer could not be written: {error.strerror}")
        sys.exit(Status.FAILED)


def text(written: str) -> str:
    """Take an option's text. Bytes that are no UTF-8 come as lone surrogates, which no text here has."""
    if not written:
        raise typer.BadParameter("it is empty: write what is meant, or leave the option out")
    try:
        written.encode("utf-8")
    except UnicodeEncodeError:
        raise typer.BadParameter("it is not UTF-8: write it in UTF-8") from None
    return written


def one_of[Word: StrEnum](words: type[Word]) -> dict[str, Any]:
    """Give what makes an option take one of these words; typer's own mistake has pydantic's name for it."""
    allowed = [word.value for word in words]

    def parse(written: str) -> Word:
        try:
            return words(written)
        except ValueError:
            raise typer.BadParameter(f"write one of {', '.join(allowed)}") from None

    def complete(incomplete: str) -> list[str]:
        return [word for word in allowed if word.startswith(incomplete)]

    return {"parser": parse, "metavar": f"<{'|'.join(allowed)}>", "autocompletion": complete}


def print_json(value: object) -> None:
    """Print one line of JSON."""
    typer.echo(json.dumps(value))


def warn(what: str) -> None:
    """Tell a person, beside the answer."""
    typer.echo(f"visa-jupyter-proxy: {what}", err=True)


def fail(why: object, status: Status = Status.FAILED) -> NoReturn:
    """End, and say why."""
    warn(str(why))
    raise typer.Exit(status)


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Print every mistake of a `ConfigurationError`, and end with the status for it."""
    try:
        yield
    except ConfigurationError as error:
        for mistake in error.mistakes:
            warn(mistake)
        raise typer.Exit(Status.MISTAKEN) from None
