"""The newest access token of each user, for reports that need one. In memory only, never on disk."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from visa_jupyter_proxy.mailbox import OPAQUE

PATIENCE_S: Final = 3600.0
"""For how long an open waits for a token that is accepted, and for how long a token is kept for one."""

OPAQUE_PATIENCE_S: Final = 120.0
"""For how long it waits when its token does not say whose it is. One refusal can be transient: the API knows
an identity for 30 s, and asks for it with a time-out of 2.5 s (contract section 2). No other will follow from
plain requests, so to wait longer would only hold back what is to be told of the session after it."""

type Holder = str | int
"""Whose tokens can deliver an open: a user's; or, where tokens do not say whose they are, the owner's of the
instance with this id. The API accepts no token but its owner's for an instance (contract section 2)."""


def holder(user: str, instance_id: int) -> Holder:
    """Say whose tokens can deliver the opening of a session of this user on this instance."""
    return instance_id if user.startswith(OPAQUE) else user


def patience_s(whose: Holder) -> float:
    """Give how long an open of theirs waits after its token was refused."""
    return PATIENCE_S if isinstance(whose, str) else OPAQUE_PATIENCE_S


MOST: Final = 20_000
"""Users whose token is kept: about 2 KiB each."""


class Tokens:
    """Tokens that the VISA API has accepted. `sub` may group such tokens (contract section 3)."""

    def __init__(self, monotonic: Callable[[], float], *, most: int = MOST) -> None:
        self._monotonic = monotonic
        self._most = most
        self._newest: OrderedDict[Holder, tuple[str, float]] = OrderedDict()
        """In the order of their coming: the first is the oldest."""

    def __repr__(self) -> str:
        return f"Tokens({len(self._newest)})"

    def accepted(self, whose: Holder, token: str) -> bool:
        """Keep the newest token; False when it is the one that was kept already."""
        known, _ = self._newest.pop(whose, ("", 0.0))
        now = self._monotonic()
        self._newest[whose] = (token, now)
        self._forget(now)
        return token != known

    def confirmed(self, whose: Holder, token: str) -> None:
        """Keep it longer, if it is the newest: it has been accepted once more."""
        if self._newest.get(whose, ("", 0.0))[0] == token:
            self.accepted(whose, token)

    def newest(self, whose: Holder) -> str | None:
        """Give the token that was accepted last, if that is not too long ago."""
        token, at = self._newest.get(whose, (None, 0.0))
        return None if self._monotonic() - at >= PATIENCE_S else token

    def _forget(self, now: float) -> None:
        while self._newest:
            oldest = next(iter(self._newest))
            if len(self._newest) <= self._most and now - self._newest[oldest][1] < PATIENCE_S:
                return
            del self._newest[oldest]
