"""What control is told as time goes by, and how often: progress about once a minute, a token once."""

from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy.mailbox import TokenAccepted, TunnelProgressed
from visa_jupyter_proxy.worker.credentials import AccessToken
from visa_jupyter_proxy.worker.records import tunnel_progressed
from visa_jupyter_proxy.worker.tunnel import Tunnel

PROGRESS_S: Final = 60
"""Between two reports on one kernel channel: so much of its figures is lost when everything is killed."""

MOST_TOKENS: Final = 10_000
"""Tokens that are remembered as told, by their digests: about 1 MB."""


class Progress:
    """Tells what has passed through each kernel channel, a sixtieth of them in each second."""

    def __init__(self, tell: Callable[[TunnelProgressed], None]) -> None:
        self._tell = tell
        self._second = 0

    def tick(self, connections: Iterable[object], now: float, at: float) -> None:
        """Tell of those whose second it is, if something has passed; `now` and `at` are the same moment."""
        self._second = (self._second + 1) % PROGRESS_S
        for one in connections:
            if isinstance(one, Tunnel) and one.origin.notebook is not None:
                number = one.origin.notebook
                if number % PROGRESS_S == self._second and one.has_progressed():
                    self._tell(tunnel_progressed(one, number, now, at))


class AcceptedTokens:
    """Tells of each token that the API has accepted, the first time."""

    def __init__(self, tell: Callable[[TokenAccepted], None], *, most: int = MOST_TOKENS) -> None:
        self._tell = tell
        self._most = most
        self._told: dict[bytes, None] = {}

    def accepted(self, token: AccessToken, user: str) -> None:
        """Take note: the API has just accepted it."""
        if token.digest in self._told:
            return
        if len(self._told) >= self._most:
            del self._told[next(iter(self._told))]
        self._told[token.digest] = None
        self._tell(TokenAccepted(user=user, token=token.text))
