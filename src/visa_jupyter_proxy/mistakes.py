"""How commands end when what the operator wrote cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from visa_jupyter_proxy.routes import ConfigurationError


@contextmanager
def told() -> Iterator[None]:
    """Print every mistake of a `ConfigurationError`, and exit with status 2."""
    try:
        yield
    except ConfigurationError as error:
        for mistake in error.mistakes:
            typer.echo(f"visa-jupyter-proxy: {mistake}", err=True)
        raise typer.Exit(2) from None
