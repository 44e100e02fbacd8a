"""A service of `proxy.conf.json` as a plain value, and what is raised when one cannot be made."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

PLACEHOLDERS: Final = ("computeId", "id", "uid", "owner")
"""What `{...}` in a value of `setHeaders` may name, all taken from the API's answer about the instance."""

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
"""One `{name}` in a value of `setHeaders`; a brace without its partner is an ordinary character."""


class ConfigurationError(Exception):
    """What the operator wrote cannot be used. `mistakes` has every one of them, a sentence each."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class Rewrite(msgspec.Struct, frozen=True):
    """One rule of `pathRewrite`: a JavaScript pattern and its replacement."""

    pattern: str
    replacement: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One service of `proxy.conf.json`, checked, as plain values (it travels to the workers)."""

    match: str
    """JavaScript pattern for the raw request target, query included; its first group is the instance id."""
    type: str
    """`jupyter` (its kernel channels are notebook sessions) or `service`."""
    name: str
    """For people: it stands in logs, in metrics, and on pages, unless the type is `jupyter`."""
    remote_port: int
    ws: bool = False
    path_rewrite: tuple[Rewrite, ...] = ()
    """The first rule that matches is applied, once."""
    remote_scheme: str = "http"
    """`http` or `https`."""
    remote_ca: str | None = None
    """Absolute path of a PEM file; None is the system's own authorities."""
    remote_verify: bool = True
    set_headers: tuple[tuple[str, str], ...] = ()
    """Field name and value for the instance; they replace the client's. `{name}`: see `PLACEHOLDERS`."""
    max_body_bytes: int | None = None
    """Largest request body; None is any."""
    strip_credentials: bool = True
    """Whether the access token is taken out of what the instance gets."""
