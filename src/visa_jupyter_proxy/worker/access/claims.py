"""What a token says of itself (contract section 3). It grants nothing: anybody can write one."""

import base64
import hashlib
from contextlib import suppress

import msgspec

from visa_jupyter_proxy.identifiers import storable
from visa_jupyter_proxy.mailbox import OPAQUE


class Claims(msgspec.Struct, frozen=True):
    """Whose a token is, and until when it is good, in its own words."""

    user: str
    """For logs and records: its `sub`, shortened if it is long or odd; without one, a digest of the token."""
    exp: float | None
    """Unix time."""


class _Payload(msgspec.Struct):
    sub: str | None = None
    exp: float | None = None


_decoder = msgspec.json.Decoder(_Payload)


def claims(token: str) -> Claims:
    """Read a token; one that cannot be read, such as an opaque one, is its own user, and has no `exp`."""
    parts = token.split(".")
    payload = _Payload()
    if len(parts) == 3:
        # Anything may stand there, nested as deep as it likes.
        with suppress(ValueError, msgspec.DecodeError, RecursionError):
            payload = _decoder.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    digest = hashlib.sha256(token.encode("ascii")).hexdigest()[:16]
    return Claims(storable(payload.sub) if payload.sub else f"{OPAQUE}{digest}", payload.exp)
