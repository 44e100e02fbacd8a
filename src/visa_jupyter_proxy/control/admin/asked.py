"""What is asked: the parameters of a query. One that nobody reads is a mistake, not a wish to be ignored."""

import re
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from visa_jupyter_proxy.control.admin.answers import Refused
from visa_jupyter_proxy.identifiers import LARGEST_INSTANCE, storable


def parameters(request: web.Request, **known: Callable[[str], object]) -> dict[str, Any]:
    """Read the query: the parameters that are `known`, each by what reads its text. Raises `Refused`."""
    found: dict[str, Any] = dict.fromkeys(known)
    for name in dict.fromkeys(request.query):
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "there are none here"
            raise _mistaken(f"{name[:_LONGEST_SHOWN]}: there is no such parameter: {there_are}")
        if len(request.query.getall(name)) > 1:
            raise _mistaken(f"{name}: is there more than once: write it once")
        try:
            found[name] = known[name](request.query[name])
        except ValueError as error:
            raise _mistaken(f"{name}: {error}") from None
    return found


def instance(text: str) -> int:
    """Read the id of an instance."""
    if re.fullmatch(r"[0-9]{1,19}", text) and int(text) <= LARGEST_INSTANCE:
        return int(text)
    raise ValueError(f"write the id of an instance, a whole number up to {LARGEST_INSTANCE}")


def user(text: str) -> str:
    """Read who a user is: the token's `sub`, or as the sessions show it."""
    if text:
        return storable(text)
    raise ValueError("write the `user` of a session, or leave it out")


_LONGEST_SHOWN: Final = 64


def _mistaken(message: str) -> Refused:
    return Refused(400, "bad_parameter", message)
