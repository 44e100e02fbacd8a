"""What control is told as time goes by: progress once a minute, who has tunnels once a second."""

from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, TokenAccepted, TunnelProgressed
from visa_jupyter_proxy.visa_api import Instance
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.accounting.records import traffic
from visa_jupyter_proxy.worker.http.credentials import AccessToken
from visa_jupyter_proxy.worker.tunnel import Tunnel

PROGRESS_S: Final = 60
"""Between two reports on one kernel channel: so much of its figures is lost when everything is killed."""

type _Key = tuple[str, int]
"""User and instance."""


class Progress:
    """Tells what has passed through each kernel channel, a sixtieth of them in each second."""

    def __init__(self, tell: Callable[[TunnelProgressed], None]) -> None:
        self._tell = tell
        self._second = 0
        self._seen: dict[int, int] = {}
        """Number of a channel -> bytes both ways, at the last look."""

    def tick(self, connections: Iterable[object], now: float, at: float) -> None:
        """Tell of those whose second it is, if something has passed; `now` and `at` are the same moment."""
        self._second = (self._second + 1) % PROGRESS_S
        for one in connections:
            if isinstance(one, Tunnel) and one.origin.notebook is not None:
                number = one.origin.notebook
                if number % PROGRESS_S == self._second and one.has_progressed():
                    self._tell(TunnelProgressed(number, traffic(one, now, at)))

    def look(self, connections: Iterable[object], now: float, at: float) -> None:
        """Tell of all through which something has passed since the last look, for somebody who looks."""
        seen = {}
        for one in connections:
            if isinstance(one, Tunnel) and one.origin.notebook is not None:
                number = one.origin.notebook
                seen[number] = one.down.received + one.up.received
                if seen[number] != self._seen.get(number):
                    self._tell(TunnelProgressed(number, traffic(one, now, at), is_for_a_look=True))
        self._seen = seen


class Holdings:
    """Tells who has tunnels to what: once for all of a user to an instance, and when the last is over.

    It counts, and tells once a second: what was opened and has ended meanwhile is not told of.
    """

    def __init__(self, tell: Callable[[AccessHeld | AccessReleased], None]) -> None:
        self._tell = tell
        self._counts: dict[_Key, int] = {}
        self._told: dict[_Key, str] = {}
        """Key -> the address that was told last."""
        self._new: dict[tuple[_Key, str], str] = {}
        """Key and address -> token, of what has to be told."""
        self._over: set[_Key] = set()
        """What may have to be told as being over."""

    def opened(self, grant: Grant, token: str) -> None:
        """Count a tunnel, opened with `grant` and `token`."""
        key = (grant.user, grant.instance_id)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._told.get(key) != grant.host:
            self._new[key, grant.host] = token

    def ended(self, user: str, instance_id: int) -> None:
        """Count one less."""
        key = (user, instance_id)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
            self._over.add(key)

    def tick(self) -> None:
        """Tell what is new; once a second."""
        for (key, host), token in self._new.items():
            if key in self._counts:
                self._told[key] = host
                self._tell(AccessHeld(user=key[0], instance_id=key[1], host=host, token=token))
        for key in self._over:
            if key not in self._counts and self._told.pop(key, None) is not None:
                self._tell(AccessReleased(user=key[0], instance_id=key[1]))
        self._new.clear()
        self._over.clear()


def token_accepted(token: AccessToken, user: str, instance: Instance) -> TokenAccepted:
    """Make what control is told of an answer of the API; each time, for it may have heard of others since."""
    return TokenAccepted(
        user=user, token=token.text, instance_id=instance.id, state=instance.state, host=instance.host
    )
