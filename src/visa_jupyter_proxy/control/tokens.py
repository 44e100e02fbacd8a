"""The newest access token of each user, for reports that need one. In memory only, never on disk."""

from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 3600.0
"""For how long an open waits for a token that is accepted, and for how long a token is kept for one."""

MOST: Final = 20_000
"""Users whose token is kept: about 2 KiB each."""


class Tokens:
    """Tokens that the VISA API has accepted. `sub` may group such tokens (contract section 3)."""

    def __init__(self, monotonic: Callable[[], float], *, most: int = MOST) -> None:
        self._monotonic = monotonic
        self._most = most
        self._newest: dict[str, tuple[str, float]] = {}
        """In the order of their coming: the first is the oldest."""

    def __repr__(self) -> str:
        return f"Tokens({len(self._newest)})"

    def accepted(self, user: str, token: str) -> bool:
        """Keep the newest token of a user; False when it is the one that was kept already."""
        known, _ = self._newest.pop(user, ("", 0.0))
        now = self._monotonic()
        self._newest[user] = (token, now)
        self._forget(now)
        return token != known

    def newest(self, user: str) -> str | None:
        """Give the token that was accepted last, if that is not too long ago."""
        token, at = self._newest.get(user, (None, 0.0))
        return None if self._monotonic() - at >= PATIENCE_S else token

    def _forget(self, now: float) -> None:
        while self._newest:
            oldest = next(iter(self._newest))
            if len(self._newest) <= self._most and now - self._newest[oldest][1] < PATIENCE_S:
                return
            del self._newest[oldest]
