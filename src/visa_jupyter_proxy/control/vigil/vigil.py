"""What workers say of live access, what ends by it, and the grace of those whose token is refused."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.tokens import Tokens
from visa_jupyter_proxy.control.vigil.answers import told_of_owner
from visa_jupyter_proxy.control.vigil.elsewhere import Elsewhere
from visa_jupyter_proxy.control.vigil.rounds import Rounds
from visa_jupyter_proxy.control.vigil.watches import MOVED, Watches
from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, EndTunnels, TokenAccepted
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.waiting import happens

SHORTEST_LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 5.0
"""Between two looks whether a grace is over."""

_LOOKS: Final = 10
"""In a grace: so much of it is the most that it can be late."""

_TELLINGS: Final = 4
"""In a grace: how often other nodes are told that tokens are accepted here."""

_PATIENCE_S: Final = 1.0
"""For a transaction that is under way when all is to end."""

_log: Final = logs.get()


class Vigil:
    """The watch of one control process over the access of those who have live tunnels on its workers.

    The caller owns `api` and closes it after `stop`. Make it inside the running loop that will use it; what
    the workers say may be told before `start`. Times in seconds.
    """

    def __init__(
        self,
        api: VisaApi,
        tokens: Tokens,
        end: Callable[[EndTunnels], None],
        *,
        journal: Journal | None,
        recheck_s: float,
        grace_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`tokens` are those that the API has accepted on this node; `end` sends to all workers.

        `journal` is for this alone, and is closed by `stop`; None when there are no other nodes to ask.
        With a period `recheck_s` of 0 nobody is asked about.
        """
        self._send = end
        self._monotonic = monotonic
        self._others = None if journal is None else Elsewhere(journal, monotonic=monotonic)
        self._look_s = LONGEST_LOOK_S
        self._watches = Watches(
            recheck_s=recheck_s, grace_s=grace_s, asks_others=journal is not None, jitter=jitter
        )
        self._rounds = Rounds(
            api,
            tokens,
            self._watches,
            concluded=self._end,
            accepted=self._note_accepted,
            monotonic=monotonic,
            jitter=jitter,
        )
        self._round: asyncio.Task[None] | None = None
        self._grace: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._set(recheck_s, grace_s)
        self.ended: Counter[str] = Counter()
        """How often tunnels were to end, for which reason."""

    def reload(self, recheck_s: float, grace_s: float) -> None:
        """Go by other periods from now on."""
        self._watches.reload(recheck_s, grace_s, self._monotonic())
        self._set(recheck_s, grace_s)
        self._rounds.wake()

    def _set(self, recheck_s: float, grace_s: float) -> None:
        self._look_s = max(SHORTEST_LOOK_S, min(LONGEST_LOOK_S, max(grace_s, recheck_s) / _LOOKS))
        if self._others is not None:
            self._others.every_s = grace_s / _TELLINGS

    # --- what the workers say; never waits, never raises --------------------------------------

    def access_held(self, worker: int, message: AccessHeld) -> None:
        """Take note that a worker has tunnels of a user to an instance."""
        self._watches.held(worker, message, self._monotonic())
        self._rounds.wake()

    def access_released(self, worker: int, message: AccessReleased) -> None:
        """Take note that it has none any more."""
        self._watches.released(worker, message.user, message.instance_id)

    def worker_lost(self, worker: int) -> None:
        """Take note that a worker is gone, with all its tunnels."""
        self._watches.lost(worker)

    def token_accepted(self, message: TokenAccepted) -> None:
        """Conclude from what a worker was told for a request: it needs not be asked again so soon."""
        told = told_of_owner(message.state, message.host)
        self._note_accepted(message.user, message.instance_id)
        self._end(self._watches.accepted(message.user, message.instance_id, told, self._monotonic()))
        self._rounds.wake()

    # --- how things are ----------------------------------------------------------------------

    @property
    def watched(self) -> int:
        """How many pairs of a user and an instance are asked about."""
        return self._watches.watched

    def instances(self, user: str) -> int:
        """Say to how many instances a user has tunnels on this node."""
        return self._watches.instances(user)

    @property
    def doubted(self) -> int:
        """How many of them have no token that the API accepts at the moment."""
        return self._watches.doubted

    @property
    def is_failing(self) -> bool:
        """Whether the last answer of the API was none."""
        return self._rounds.is_failing

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to go round."""
        self._round = asyncio.create_task(self._rounds.run(), name="vigil")
        self._grace = asyncio.create_task(self._mind_grace(), name="grace")

    async def stop(self) -> None:
        """End; questions are broken off, and a transaction too if it takes long."""
        self._stop.set()
        if self._grace is not None:
            await asyncio.wait([self._grace], timeout=_PATIENCE_S)
        tasks = [task for task in (self._round, self._grace) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._others is not None:
            await self._others.close()

    async def _mind_grace(self) -> None:
        while not self._stop.is_set():
            try:
                await self.look()
            except Exception:  # noqa: BLE001 -- a defect of ours must not end the watch
                _log.error("looking after doubted access failed", exc_info=True)
            await happens(self._stop, self._look_s)

    async def look(self) -> None:
        """End the tunnels of those whose grace is over, here and on all other nodes."""
        if self._others is not None:
            doubted = self._watches.in_doubt()
            found = await self._others.look(doubted)
            if found is None:
                return  # perhaps another node knows better: no conclusion
            self._watches.elsewhere({key: found.get(key, 0) for key in doubted}, self._monotonic())
        self._end(self._watches.lapsed(self._monotonic()))
        self._rounds.wake()

    def _note_accepted(self, user: str, instance_id: int) -> None:
        if self._others is not None:
            self._others.accepted((user, instance_id))

    # --- what is told ---------------------------------------------------------------------------

    def _end(self, endings: Iterable[EndTunnels]) -> None:
        for ending in endings:
            self.ended[ending.reason] += 1
            _log.notice(
                "access has ended" if ending.reason != MOVED else "an instance has another address",
                user=ending.user,
                instance=ending.instance_id,
                reason=ending.reason,
                code=ending.code,
            )
            self._send(ending)
