"""What the operator has written, read as one: at the start, and again at a reload."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from visa_jupyter_proxy.mailbox import Page, Start
from visa_jupyter_proxy.routes import ConfigurationError, Route
from visa_jupyter_proxy.settings import PREFIX, Settings, reloaded

_FEWER_THAN_WORKERS: Final = (
    PREFIX + "MAX_CONNECTIONS: {} is less than one for each of the {} workers: write more, or start anew"
)

_GONE: Final = "{}: is gone, and the services in the package would take its place: put it back, or start anew"


class Configuration(NamedTuple):
    """Settings, services and pages that belong together."""

    settings: Settings
    warnings: tuple[str, ...]
    routes_file: Path
    routes: tuple[Route, ...]
    pages: dict[str, dict[str, Page]]

    def start(self) -> Start:
        """Return what all workers together have to know."""
        return Start(settings=self.settings.for_worker(), routes=self.routes, pages=self.pages)


type Read = Callable[[], Configuration]
"""Reads anew. Raises `ConfigurationError` with every mistake."""


class Renewal(NamedTuple):
    """What a reload makes of a configuration."""

    configuration: Configuration
    changed: tuple[str, ...]
    """Settings that are others now, and what else has changed."""
    kept: tuple[str, ...]
    """Settings that change at the next start."""


def renewed(present: Configuration, read: Configuration, workers: int) -> Renewal:
    """Return `present` with whatever may change of what has been `read`.

    Raises `ConfigurationError` when the `workers` that there are could not go by it, or when the file of the
    services that hold has vanished: nobody who takes it away for a moment means those in the package.
    """
    own = read.settings.working_directory / "proxy.conf.json"
    if read.settings.config_file is None and present.routes_file == own != read.routes_file:
        raise ConfigurationError([_GONE.format(own)])
    settings, changed, kept = reloaded(present.settings, read.settings)
    if 0 < settings.max_connections < workers:
        raise ConfigurationError([_FEWER_THAN_WORKERS.format(settings.max_connections, workers)])
    what = [
        name
        for name, is_other in (
            ("services", present.routes != read.routes),
            ("pages", present.pages != read.pages),
        )
        if is_other
    ]
    configuration = Configuration(settings, read.warnings, read.routes_file, read.routes, read.pages)
    return Renewal(configuration, (*changed, *what), kept)
