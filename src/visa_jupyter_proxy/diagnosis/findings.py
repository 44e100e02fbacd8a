"""What a check has found."""

from typing import Literal

import msgspec

type Verdict = Literal["ok", "warning", "wrong"]


class Finding(msgspec.Struct, frozen=True):
    """What was found, and what to change if it is not well."""

    about: str
    verdict: Verdict
    text: str
