"""The URL of a database, in the form that SQLAlchemy reads."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator

_SCHEMES: Final = ("postgresql+asyncpg", "postgresql")

_KEYS: Final = ("host", "port", "ssl", "target_session_attrs")
"""What may stand in the query: a socket's directory or several hosts, and how to speak to them."""

_WRITE: Final = (
    "write postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in a password "
    "percent-encoded (%40 for an @)"
)


def _database_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        parts = urlsplit(text)
        is_complete = parts.port != 0 and _is_complete(parts.scheme, parts.path, parts.hostname, parts.query)
    except ValueError:
        raise ValueError(_WRITE) from None
    # `urlsplit` drops line breaks and tabs.
    if not re.fullmatch(r"[!-~]*", text) or "#" in text or parts.netloc.count("@") > 1 or not is_complete:
        raise ValueError(_WRITE)
    return f"postgresql+asyncpg://{text.partition('://')[2]}"


def _is_complete(scheme: str, path: str, host: str | None, query: str) -> bool:
    given = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"{_WRITE}; after the ? only {', '.join(_KEYS)} can be set")
    return scheme in _SCHEMES and bool(re.fullmatch(r"/[^/]+", path)) and bool(host or given.get("host"))


database_url: Final = BeforeValidator(_database_url)
"""Parse the URL of a PostgreSQL database. A mistake does not repeat what is in it."""
