"""Going round: asking the VISA API about those who are watched, at a pace that it likes.

The API that is down is probed now and then (`circuit`), and concludes nothing. What was not asked meanwhile
is asked at a bounded rate when it is back, the longest overdue first.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.circuit import Circuit, Pace
from visa_jupyter_proxy.control.alarm import Alarm
from visa_jupyter_proxy.control.tokens import Tokens
from visa_jupyter_proxy.control.vigil.answers import Told, told_of_member
from visa_jupyter_proxy.control.vigil.table import Heard
from visa_jupyter_proxy.control.vigil.watches import Key, Watch, Watches
from visa_jupyter_proxy.errors import InstanceNotFound, ProxyError, TokenRejected
from visa_jupyter_proxy.mailbox import EndTunnels
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.waiting import happens

CONCURRENT: Final = 16
"""Questions at once, as with reports: half of what a small API server's pool of connections holds."""

PER_SECOND: Final = 100
"""Questions: with a period of a minute that is enough for six thousand users, and more of them are asked
about less often."""

_log: Final = logs.get()


class Rounds:
    """Asks about those of `watches` who are due, in the background."""

    def __init__(
        self,
        api: VisaApi,
        tokens: Tokens,
        watches: Watches,
        *,
        concluded: Callable[[Iterable[EndTunnels]], None],
        accepted: Callable[[str, int], None],
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Tell `concluded` what is to end, and `accepted` of a user and an instance that is theirs."""
        self._api = api
        self._tokens = tokens
        self._watches = watches
        self._conclude = concluded
        self._accepted = accepted
        self._monotonic = monotonic
        self._circuit: Circuit[Key] = Circuit(jitter)
        self._pace = Pace(PER_SECOND)
        self._changed = asyncio.Event()
        self._questions: set[asyncio.Task[None]] = set()
        self._is_failing = False
        self._alarm = Alarm()

    @property
    def is_failing(self) -> bool:
        """Whether the last answer of the API was none."""
        return self._is_failing

    def wake(self) -> None:
        """Look again who is due: that has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled; then questions that are under way are broken off."""
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
        await happens(self._changed, None if at is None else max(0.0, at - self._monotonic()))

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
            self._conclude(self._watches.answered(watch, told, self._monotonic()))

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
            self._tokens.confirmed(watch.user, token)
            if told.heard is Heard.OWNER:
                self._accepted(watch.user, watch.instance_id)
        self._circuit.worked()
        self._works()
        return told

    def _token(self, watch: Watch) -> str:
        return self._tokens.newest(watch.user) or watch.token

    def _fails(self, error: ProxyError) -> None:
        self._is_failing = True
        if self._alarm.failed(self._monotonic()):
            _log.warning(
                "VISA does not say who may still use what; nobody is disconnected for that",
                reason=error.error,
                cause=str(error),
                watched=len(self._watches),
            )

    def _works(self) -> None:
        self._is_failing = False
        if self._alarm.worked():
            _log.info("VISA says again who may use what", watched=len(self._watches))
