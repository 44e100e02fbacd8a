"""Telling the VISA API which notebook sessions are open: the delivery of what is due.

Rules:

1. Reports of one session key are delivered one after the other, in the order of the journal (`outbox`).
2. A close is settled only by a 200, and tried for ever: it is idempotent, needs no token, and the
   contract knows no other answer. Whatever else comes back (also a 4xx) is taken for an API that is not
   itself, or a wrong `API_URL`; one attempt a minute harms nobody.
3. An open is settled by a 200, or by 403 and 404: not this user's instance, so nothing is to be opened.
   A 401 can be transient (contract section 2) and is tried again, at once when a newer token of the same
   user has been accepted. An hour after the first it is given up; after two minutes, if the token does not
   say whose it is and none can follow it (`tokens`). Without any token an open cannot be delivered at all.
4. Between attempts: exponential back-off with full jitter, up to 60 s. An API that is down gets one probe
   at a time, and what has gathered at a bounded rate when it is back (`circuit`).
5. Nothing is sent while others may believe this process dead, and have taken its reports over.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.circuit import Circuit, Pace
from visa_jupyter_proxy.control.alarm import Alarm
from visa_jupyter_proxy.control.journal.records import ReportState
from visa_jupyter_proxy.control.outbox import Outbox, Report
from visa_jupyter_proxy.control.tokens import Tokens, patience_s
from visa_jupyter_proxy.errors import InstanceNotFound, ProxyError, TokenRejected
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.waiting import happens

_log: Final = logs.get()


class Delivery:
    """Sends what is due in the outbox, in the background."""

    def __init__(
        self,
        api: VisaApi,
        outbox: Outbox,
        tokens: Tokens,
        settled: Callable[[Report, ReportState], None],
        *,
        may_send: Callable[[], bool],
        monotonic: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`settled` is called once for each report that reaches a final state, and must not raise.

        While `may_send` says no, nothing begins; `wake` when that changes.
        """
        self._api = api
        self._outbox = outbox
        self._tokens = tokens
        self._settled = settled
        self._may_send = may_send
        self._monotonic = monotonic
        self._jitter = jitter
        self._circuit = Circuit[NotebookKey](jitter)
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm = Alarm()

    def wake(self) -> None:
        """Look again what is due: the outbox has changed, or what is allowed."""
        self._changed.set()

    def hurry(self) -> None:
        """Forget all back-off: this is the last chance."""
        self._outbox.hurry()
        self._circuit.hurry()
        self.wake()

    async def run(self) -> None:
        """Deliver until cancelled; then attempts that are under way are broken off."""
        try:
            while True:
                self._changed.clear()
                for report in self._due():
                    task = asyncio.create_task(self._send(report, probe=self._begins()))
                    self._tasks.add(task)
                    task.add_done_callback(self._done)
                await self._wait()
        finally:
            await self._break_off()

    async def empty(self) -> None:
        """Return when nothing is left that this process could deliver; needs `run`."""
        while self._outbox.deliverable:
            self._progress.clear()
            await self._progress.wait()

    # --- when -----------------------------------------------------------------------------------

    def _due(self) -> list[Report]:
        if not self._may_send():
            return []
        now = self._monotonic()
        most, probes = self._pace.allows(now), self._circuit.allows(now)
        return self._outbox.due(now, most if probes is None else min(most, probes))

    def _begins(self) -> bool:
        self._pace.begins()
        return self._circuit.begins()

    def _next_at(self) -> float | None:
        due, allowed = self._outbox.next_at(), self._circuit.next_at()
        if due is None or allowed is None or not self._may_send():
            return None
        return max(due, allowed, self._pace.next_at(self._monotonic()))

    async def _wait(self) -> None:
        at = self._next_at()
        await happens(self._changed, None if at is None else max(0.0, at - self._monotonic()))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._progress.set()
        self._changed.set()

    async def _break_off(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one attempt ----------------------------------------------------------------------------

    async def _send(self, report: Report, *, probe: bool) -> None:
        try:
            await self._call(report)
        except asyncio.CancelledError:
            self._circuit.broken_off(probe=probe)
            self._outbox.broken_off(report)
            raise
        except _NoTokenError:
            self._circuit.broken_off(probe=probe)
            self._settle(report, ReportState.NOT_DELIVERED)
        except ProxyError as error:
            self._judge(report, error, probe=probe)
        except Exception:  # noqa: BLE001 -- a defect of ours must not stop the other reports
            _log.error("reporting a notebook session failed", kind=report.kind, exc_info=True)
            self._circuit.broken_off(probe=probe)
            self._outbox.failed(report, self._monotonic(), self._jitter())
        else:
            report.attempts += 1
            self._works()
            self._settle(report, ReportState.DELIVERED)

    async def _call(self, report: Report) -> None:
        key = report.key
        if report.kind == "close":
            await self._api.close_notebook(key.instance_id, key.kernel_id, key.session_id)
            return
        token = self._tokens.newest(report.holder) or report.token
        if token is None:
            raise _NoTokenError
        await self._api.open_notebook(token, key.instance_id, key.kernel_id, key.session_id)

    def _judge(self, report: Report, error: ProxyError, *, probe: bool) -> None:
        """Say what an attempt that failed means."""
        now = self._monotonic()
        match error:
            case InstanceNotFound() if report.kind == "open":
                self._works()
                self._settle(report, ReportState.REFUSED)
            case TokenRejected() if report.kind == "open":
                self._works()
                if report.refused_at is not None and now - report.refused_at >= patience_s(report.holder):
                    self._settle(report, ReportState.NOT_DELIVERED)
                else:
                    self._outbox.refused(report, now, self._jitter())
            case _:
                self._fails(error)
                self._circuit.failed(report.key, now, probe=probe)
                self._outbox.failed(report, now, self._jitter())

    def _settle(self, report: Report, state: ReportState) -> None:
        self._outbox.settled(report)
        self._settled(report, state)

    def _fails(self, error: ProxyError) -> None:
        if self._alarm.failed(self._monotonic()):
            _log.warning(
                "notebook sessions cannot be reported to VISA; trying again",
                reason=error.error,
                cause=str(error),
                pending=len(self._outbox),
            )

    def _works(self) -> None:
        self._circuit.worked()
        if self._alarm.worked():
            _log.info("notebook sessions are reported to VISA again", pending=len(self._outbox))


class _NoTokenError(Exception):
    pass
