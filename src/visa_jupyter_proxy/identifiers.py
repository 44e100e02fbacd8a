"""Ids of users, instances, kernels and sessions, in a form that everybody can keep, show and ask for."""

import hashlib
import re
from typing import Final

LONGEST_ID: Final = 150
"""What the VISA API can keep of an id (contract section 2)."""

LARGEST_INSTANCE: Final = 2**63 - 1
"""Ids of instances are a long and a bigint at the VISA API; no database takes a larger number."""

_DIGEST: Final = 32
_START: Final = LONGEST_ID - _DIGEST

_SHORTENED: Final = re.compile(f"[ -~]{{{_START}}}~[0-9a-f]{{{_DIGEST}}}")


def storable(text: str) -> str:
    """Give text that every database can keep: what is too long or unprintable, shortened and escaped.

    A digest keeps two of them apart, and its length says that it is no id for the VISA API. What has been
    shortened stays as it is, so whoever copies an id from a list may ask for it.
    """
    if (len(text) <= LONGEST_ID and text.isprintable()) or _SHORTENED.fullmatch(text):
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    start = ascii(text)[1 : _START + 1]
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST]
    return f"{start.ljust(_START, '.')}~{digest}"
