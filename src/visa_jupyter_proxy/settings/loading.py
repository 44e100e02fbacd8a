"""Settings from what was set, and every mistake in it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from visa_jupyter_proxy.routes import ConfigurationError
from visa_jupyter_proxy.settings import parsing, variables
from visa_jupyter_proxy.settings.settings import FIELDS, PREFIX, Settings


def load(
    environ: Mapping[str, str] = os.environ, directory: Path | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """Read the settings from `environ` and `directory / ".env"`; the former wins.

    The second part of the answer are warnings. Raises `ConfigurationError` with every mistake.
    `directory` is the working directory unless given.
    """
    directory = _here() if directory is None else directory
    given = variables.read(PREFIX, [name.upper() for name in FIELDS], environ, directory)
    mistakes = list(given.mistakes)
    texts: dict[str, Any] = {name.lower(): value.text for name, value in given.values.items()}
    try:
        settings = Settings(working_directory=directory, **texts)
    except ValidationError as error:
        mistakes += _mistakes(error, given)
    else:
        mistakes += [*_half_a_verification(settings), *_open_admin(settings)]
    if mistakes:
        raise ConfigurationError(mistakes)
    return settings, (*given.warnings, *_half_a_syslog(settings))


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigurationError(
            [f"the working directory: {error.strerror}: change to one that is there"]
        ) from None


def _mistakes(error: ValidationError, given: variables.Given) -> Iterator[str]:
    for mistake in error.errors(include_url=False, include_input=False):
        name = str(mistake["loc"][0]).upper()
        # Every text is read by a parser of ours, whose `ValueError` pydantic keeps.
        shown = given.shown(name)
        if name == "ADMIN_TOKEN" and given.values[name].file is None:
            shown = "what is set"  # all of it is secret, not only what stands at a place
        yield f"{PREFIX}{name}: {shown} cannot be used: {mistake['ctx']['error']}"


def _half_a_verification(settings: Settings) -> Iterator[str]:
    if settings.jwks_url is not None and settings.jwks_file is not None:
        yield f"{PREFIX}JWKS_URL and {PREFIX}JWKS_FILE are both set: remove one of them"
    if settings.jwks_url is None and settings.jwks_file is None:
        for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
            if getattr(settings, name.lower()):
                yield f"{PREFIX}{name} needs keys to verify tokens with: set JWKS_URL or JWKS_FILE too"


def _open_admin(settings: Settings) -> Iterator[str]:
    if settings.admin_token is None and not parsing.is_loopback(settings.admin_host):
        yield (
            f"{PREFIX}ADMIN_TOKEN: set it, for {PREFIX}ADMIN_HOST ({settings.admin_host}) can be reached "
            "from other machines; or set ADMIN_HOST to 127.0.0.1"
        )


def _half_a_syslog(settings: Settings) -> Iterator[str]:
    names = ("log_syslog_host", "log_syslog_port", "log_syslog_app_name")
    missing = [PREFIX + name.upper() for name in names if getattr(settings, name) is None]
    if 0 < len(missing) < len(names):
        yield f"Nothing is sent to syslog: {' and '.join(missing)} would have to be set too."
