"""Going round: asking the VISA API about those who are watched, at a pace that it likes.

The API that is down is probed now and then (`circuit`), and concludes nothing. What was not asked meanwhile
is asked at a bounded rate when it is back, the longest overdue first.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.circuit import Circuit, Pace
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.ledger import storable
from visa_jupyter_proxy.control.tokens import Tokens
from visa_jupyter_proxy.control.vigil.answers import Told, told_of_member, told_of_owner
from visa_jupyter_proxy.control.vigil.elsewhere import Elsewhere
from visa_jupyter_proxy.control.vigil.table import Heard
from visa_jupyter_proxy.control.vigil.watches import MOVED, Key, Watch, Watches
from visa_jupyter_proxy.errors import InstanceNotFound, ProxyError, TokenRejected
from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, EndTunnels, TokenAccepted
from visa_jupyter_proxy.visa_api import VisaApi

CONCURRENT: Final = 16
"""Questions at once, as with reports: half of what a small API server's pool of connections holds."""

PER_SECOND: Final = 100
"""Questions: with a period of a minute that is enough for six thousand users, and more of them are asked
about less often."""

SHORTEST_LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 5.0
"""Between two looks whether a grace is over."""

_LOOKS: Final = 10
"""In a grace: so much of it is the most that it can be late."""

_TELLINGS: Final = 4
"""In a grace: how often other nodes are told that tokens are accepted here."""

_PATIENCE_S: Final = 1.0
"""For a transaction that is under way when all is to end."""

_QUIET_S: Final = 60.0
"""Between two warnings, when the API fails and works by turns."""

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
        self._api = api
        self._tokens = tokens
        self._send = end
        self._monotonic = monotonic
        self._others = None if journal is None else Elsewhere(journal, monotonic=monotonic)
        self._look_s = LONGEST_LOOK_S
        self._watches = Watches(
            recheck_s=recheck_s, grace_s=grace_s, asks_others=journal is not None, jitter=jitter
        )
        self._circuit: Circuit[Key] = Circuit(jitter)
        self._pace = Pace(PER_SECOND)
        self._changed = asyncio.Event()
        self._questions: set[asyncio.Task[None]] = set()
        self._round: asyncio.Task[None] | None = None
        self._grace: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._set(recheck_s, grace_s)
        self.ended: Counter[str] = Counter()
        """How often tunnels were to end, for which reason."""
        self._is_failing = False
        self._warned_at = -math.inf

    def reload(self, recheck_s: float, grace_s: float) -> None:
        """Go by other periods from now on."""
        self._watches.reload(recheck_s, grace_s, self._monotonic())
        self._set(recheck_s, grace_s)
        self._changed.set()

    def _set(self, recheck_s: float, grace_s: float) -> None:
        self._look_s = max(SHORTEST_LOOK_S, min(LONGEST_LOOK_S, max(grace_s, recheck_s) / _LOOKS))
        if self._others is not None:
            self._others.every_s = grace_s / _TELLINGS

    # --- what the workers say; never waits, never raises --------------------------------------

    def access_held(self, worker: int, message: AccessHeld) -> None:
        """Take note that a worker has tunnels of a user to an instance."""
        self._watches.held(worker, message, self._monotonic())
        self._changed.set()

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
        self._changed.set()

    # --- how things are ----------------------------------------------------------------------

    @property
    def watched(self) -> int:
        """How many pairs of a user and an instance are asked about."""
        return self._watches.watched

    @property
    def doubted(self) -> int:
        """How many of them have no token that the API accepts at the moment."""
        return self._watches.doubted

    @property
    def is_failing(self) -> bool:
        """Whether the last answer of the API was none."""
        return self._is_failing

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to go round."""
        self._round = asyncio.create_task(self._go_round(), name="vigil")
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

    async def _go_round(self) -> None:
        try:
            while True:
                self._changed.clear()
                for watch in self._due():
                    self._begin(watch)
                await self._wait()
        finally:
            questions = [*self._questions]
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)

    async def _mind_grace(self) -> None:
        while not self._stop.is_set():
            try:
                await self.look()
            except Exception:  # noqa: BLE001 -- a defect of ours must not end the watch
                _log.error("looking after doubted access failed", exc_info=True)
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._look_s):
                await self._stop.wait()
        except TimeoutError:
            pass  # it is time to look again

    async def look(self) -> None:
        """End the tunnels of those whose grace is over, here and on all other nodes."""
        if self._others is not None:
            keys = {key: (storable(key[0]), key[1]) for key in self._watches.in_doubt()}
            found = await self._others.look(keys.values())
            if found is None:
                return  # perhaps another node knows better: no conclusion
            counts = {key: found.get(stored, 0) for key, stored in keys.items()}
            self._watches.elsewhere(counts, self._monotonic())
        self._end(self._watches.lapsed(self._monotonic()))
        self._changed.set()

    # --- when -----------------------------------------------------------------------------------

    def _due(self) -> list[Watch]:
        now = self._monotonic()
        most = min(self._pace.allows(now), CONCURRENT - len(self._questions))
        probes = self._circuit.allows(now)
        return self._watches.due(now, most if probes is None else min(most, probes))

    def _next_at(self) -> float | None:
        due, allowed = self._watches.next_at(), self._circuit.next_at()
        if due is None or allowed is None or len(self._questions) >= CONCURRENT:
            return None
        return max(due, allowed, self._pace.next_at(self._monotonic()))

    async def _wait(self) -> None:
        at = self._next_at()
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - self._monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass  # somebody is to be asked about

    # --- one question ---------------------------------------------------------------------------

    def _begin(self, watch: Watch) -> None:
        self._pace.begins()
        question = asyncio.create_task(self._ask(watch, probe=self._circuit.begins()))
        self._questions.add(question)
        question.add_done_callback(self._done)

    def _done(self, question: asyncio.Task[None]) -> None:
        self._questions.discard(question)
        self._changed.set()

    async def _ask(self, watch: Watch, *, probe: bool) -> None:
        token = self._token(watch)
        try:
            told = await self._question(token, watch, probe=probe)
        except asyncio.CancelledError:
            self._circuit.broken_off(probe=probe)
            self._watches.broken_off(watch, self._monotonic())
            raise
        except Exception:  # noqa: BLE001 -- a defect of ours must not end the watch
            _log.error("asking about access failed", instance=watch.instance_id, exc_info=True)
            self._circuit.broken_off(probe=probe)
            told = Told(Heard.NOTHING)
        if told.heard is Heard.TOKEN_REFUSED and token != self._token(watch):
            self._watches.broken_off(watch, self._monotonic())  # a newer one has come meanwhile
        else:
            self._end(self._watches.answered(watch, told, self._monotonic()))

    async def _question(self, token: str, watch: Watch, *, probe: bool) -> Told:
        try:
            told = told_of_member(await self._api.get_access(token, watch.instance_id))
        except InstanceNotFound:
            told = Told(Heard.NOT_OWNER)
        except TokenRejected:
            told = Told(Heard.TOKEN_REFUSED)
        except ProxyError as error:
            self._circuit.failed(watch.key, self._monotonic(), probe=probe)
            self._fails(error)
            return Told(Heard.NOTHING)
        else:
            self._tokens.confirmed(storable(watch.user), token)
            if told.heard is Heard.OWNER:
                self._note_accepted(watch.user, watch.instance_id)
        self._circuit.worked()
        self._works()
        return told

    def _token(self, watch: Watch) -> str:
        return self._tokens.newest(storable(watch.user)) or watch.token

    def _note_accepted(self, user: str, instance_id: int) -> None:
        if self._others is not None:
            self._others.accepted((storable(user), instance_id))

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

    def _fails(self, error: ProxyError) -> None:
        now = self._monotonic()
        if not self._is_failing and now - self._warned_at >= _QUIET_S:
            self._warned_at = now
            _log.warning(
                "VISA does not say who may still use what; nobody is disconnected for that",
                reason=error.error,
                cause=str(error),
                watched=len(self._watches),
            )
        self._is_failing = True

    def _works(self) -> None:
        if self._is_failing:
            self._is_failing = False
            _log.info("VISA says again who may use what", watched=len(self._watches))
