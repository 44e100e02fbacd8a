"""How answers of the admin listener look: their fields, and what is told to who cannot be answered."""

import secrets
from typing import Any, Final

import msgspec
from aiohttp import web

FIELDS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "visa-jupyter-proxy",
}
"""Of every answer. `Server` has no version: nobody outside need know which defects there may be."""

_BY_AIOHTTP: Final = {
    404: ("not_found", "There is nothing at this address: /api/v1/openapi.json says what there is."),
    405: ("method_not_allowed", "This method is not allowed here: see Allow."),
    413: ("content_too_large", "Nothing that is asked here has such a body."),
    417: ("expectation_failed", "The expectation of the request cannot be met."),
}
"""What aiohttp refuses: `error` and `message`."""


class Refused(Exception):
    """A request that is not served: what is told instead, and `cause`, which is for the log alone."""

    def __init__(self, status: int, error: str, message: str, *, cause: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.message = message
        self.cause = cause
        self.fields: dict[str, str] = {}
        """Header fields that the answer carries."""

    @classmethod
    def by_aiohttp(cls, refusal: web.HTTPException) -> "Refused":
        """Say in our way what aiohttp has raised."""
        error, message = _BY_AIOHTTP.get(refusal.status, ("refused", f"{refusal.reason}."))
        refused = cls(refusal.status, error, message)
        if "Allow" in refusal.headers:
            refused.fields["Allow"] = refusal.headers["Allow"]
        return refused

    def response(self, request_id: str) -> web.Response:
        """Make the answer."""
        response = answer(
            {"error": self.error, "message": self.message, "requestId": request_id}, self.status
        )
        response.headers.update(self.fields)
        return response


def answer(value: Any, status: int = 200) -> web.Response:
    """Make an answer in JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def sign(response: web.StreamResponse, request_id: str) -> None:
    """Add what is in every answer."""
    response.headers.update(FIELDS)
    response.headers["X-Request-Id"] = request_id


def new_request_id() -> str:
    """Make an id: whoever has it finds the line in the log."""
    return secrets.token_hex(8)
