"""`/api/v1/events`: what the board shows, as server-sent events (HTML standard, 9.2).

    event: history    the points of the last hour, once
    event: state      health and figures, every two seconds
    event: sessions   the open sessions, when they have changed; null while the journal cannot be read
    event: point      ten more seconds, when they are over

All who look share one question to the journal.
"""

import asyncio
import socket
import time
from typing import Any, Final

import msgspec
from aiohttp import web

from visa_jupyter_proxy import __version__
from visa_jupyter_proxy.control.admin import asked, health
from visa_jupyter_proxy.control.admin.answers import Refused, sign
from visa_jupyter_proxy.control.admin.history import STEP_S, History
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.control.admin.sessions import OpenSessions, Session
from visa_jupyter_proxy.control.admin.turns import Turns
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable
from visa_jupyter_proxy.waiting import happens

EVERY_S: Final = 2.0

MOST: Final = 50
"""Who look at the same time; an operator has a few tabs."""


class Events:
    """The streams of one listener."""

    def __init__(self, seen: Seen, sessions: OpenSessions, history: History, journal: Turns) -> None:
        self._seen = seen
        self._sessions = sessions
        self._history = history
        self._journal = journal
        self._over = asyncio.Event()
        self._looking = 0
        self._asking = asyncio.Lock()
        self._known: list[Session] | None = None
        self._known_at = float("-inf")

    def end(self) -> None:
        """End all streams: the listener stops."""
        self._over.set()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send events until whoever looks has gone."""
        asked.parameters(request)
        if self._looking >= MOST:
            raise Refused(503, "too_many_streams", f"{MOST} look at the board already: close some.")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        sign(response, request["id"])
        await response.prepare(request)
        self._looking += 1
        try:
            with self._journal.watching():
                await self._send_all(response)
        except ConnectionError:
            pass  # whoever looked has gone
        finally:
            self._looking -= 1
            await self._journal.close()
        return response

    async def _send_all(self, response: web.StreamResponse) -> None:
        points = self._history.points
        await _send(response, "history", {"step": STEP_S, "points": [*points]})
        shown = points[-1] if points else None
        before = b""
        while not self._over.is_set():
            await _send(response, "state", self._state())
            sessions = msgspec.json.encode(await self._open_sessions())
            if sessions != before:
                before = sessions
                await _send(response, "sessions", msgspec.Raw(sessions))
            if points and points[-1] is not shown:
                shown = points[-1]
                await _send(response, "point", shown)
            await happens(self._over, EVERY_S)

    async def _open_sessions(self) -> list[Session] | None:
        async with self._asking:
            now = self._seen.monotonic()
            if now - self._known_at >= EVERY_S / 2:
                try:
                    self._known = await self._sessions.all()
                except JournalUnavailable:
                    self._known = None
                self._known_at = now
            return self._known

    def _state(self) -> dict[str, Any]:
        seen, notebooks = self._seen, self._seen.notebooks
        return {
            "at": time.time(),
            "version": __version__,
            "node": socket.gethostname(),
            "startedAt": seen.started_at,
            "health": health.ready(seen),
            "journal": {
                "state": notebooks.journal_state,
                "waiting": notebooks.records_waiting,
                "lag": round(notebooks.journal_lag_s, 3),
            },
            "reports": {"pending": notebooks.reports_pending, "age": round(notebooks.reports_age_s, 3)},
            "access": {
                "every": seen.settings.recheck_s,
                "watched": seen.vigil.watched,
                "doubted": seen.vigil.doubted,
                "failing": seen.vigil.is_failing,
            },
            "tunnels": seen.sums.under_way("tunnels"),
            "clients": seen.sums.under_way("downstream"),
        }


async def _send(response: web.StreamResponse, event: str, value: object) -> None:
    # JSON has no line break that would end the field.
    await response.write(b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(value)))
