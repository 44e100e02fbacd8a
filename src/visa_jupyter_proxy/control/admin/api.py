"""`/api/v1`: what is going on, for programs and for the board; and the two things that can be done.

Every answer is JSON. `openapi` describes all of it, and a test compares.
"""

import socket
from typing import Any, Final

from aiohttp import web

from visa_jupyter_proxy import __version__, logs
from visa_jupyter_proxy.control.admin import asked
from visa_jupyter_proxy.control.admin.answers import Refused, answer
from visa_jupyter_proxy.control.admin.ending import Endings
from visa_jupyter_proxy.control.admin.openapi import document
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.control.admin.sessions import OpenSessions, Session, instances
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable
from visa_jupyter_proxy.routes import PLACEHOLDER, Route
from visa_jupyter_proxy.settings import FIELDS

PREFIX: Final = "/api/v1"

_MASK: Final = "********"


class Api:
    """The answers of one listener."""

    def __init__(self, seen: Seen, sessions: OpenSessions, endings: Endings) -> None:
        self._seen = seen
        self._sessions = sessions
        self._endings = endings

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Enter all paths."""
        router.add_get(f"{PREFIX}/sessions", self.sessions)
        router.add_delete(f"{PREFIX}/sessions/{{id}}", self.end_session)
        router.add_delete(f"{PREFIX}/users/{{sub}}/tunnels", self.end_user)
        router.add_get(f"{PREFIX}/instances", self.instances)
        router.add_get(f"{PREFIX}/routes", self.routes)
        router.add_get(f"{PREFIX}/config", self.config)
        router.add_get(f"{PREFIX}/openapi.json", self.openapi)

    async def sessions(self, request: web.Request) -> web.StreamResponse:
        """Give the open sessions, all or those that fit."""
        wanted = asked.parameters(request, user=asked.user, instance=asked.instance)
        found = [
            session
            for session in await self._read()
            if wanted["user"] in (None, session.user) and wanted["instance"] in (None, session.instance)
        ]
        return answer({"sessions": found})

    async def instances(self, request: web.Request) -> web.StreamResponse:
        """Give the instances that have open sessions."""
        asked.parameters(request)
        return answer({"instances": instances(await self._read())})

    async def routes(self, request: web.Request) -> web.StreamResponse:
        """Give the services of proxy.conf.json, as they were read."""
        asked.parameters(request)
        return answer({"routes": [_shown(route) for route in self._seen.routes]})

    async def config(self, request: web.Request) -> web.StreamResponse:
        """Give the settings in force; secrets are masked."""
        asked.parameters(request)
        settings = self._seen.settings
        values = {
            name.upper(): _MASK
            if name in settings.secrets and getattr(settings, name) is not None
            else _plain(getattr(settings, name))
            for name in FIELDS
        }
        return answer({"version": __version__, "settings": values})

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """Give the description of all this."""
        asked.parameters(request)
        return answer(document())

    async def end_session(self, request: web.Request) -> web.StreamResponse:
        """End the connections of one session, wherever they are."""
        asked.parameters(request)
        session = request.match_info["id"]
        try:
            nodes = await self._endings.session(session, _asks(request))
        except JournalUnavailable as error:
            raise _unavailable(error, "The session was not ended: the journal cannot be used.") from error
        if nodes is None:
            raise Refused(404, "session_not_found", "There is no such open session.")
        _note(request, session=session)
        return answer({"nodes": nodes}, status=202)

    async def end_user(self, request: web.Request) -> web.StreamResponse:
        """End all connections of one user, wherever they are."""
        asked.parameters(request)
        user = asked.user(request.match_info["sub"])
        _note(request, user=user)
        try:
            ended = await self._endings.user(user, _asks(request))
        except JournalUnavailable as error:
            raise _unavailable(error, "They are ended here; other nodes could not be told.") from error
        body = {
            "nodes": ended.nodes,
            "instances": ended.instances,
            "sessionsElsewhere": ended.sessions_elsewhere,
        }
        return answer(body, status=202)

    async def _read(self) -> list[Session]:
        try:
            return await self._sessions.all()
        except JournalUnavailable as error:
            raise _unavailable(error, "The journal cannot be used.") from error


def _unavailable(error: JournalUnavailable, message: str) -> Refused:
    return Refused(503, "journal_unavailable", message, cause=str(error))


def _asks(request: web.Request) -> str:
    """Name who asks, as well as can be known: there is one token for all."""
    return f"{request.remote or 'unknown'} at {socket.gethostname()}"


def _note(request: web.Request, *, session: str | None = None, user: str | None = None) -> None:
    agent = request.headers.get("User-Agent", "")[:256]
    logs.get().notice(
        "an administrator ends connections",
        client=request.remote,
        user_agent=logs.without_tokens(agent),
        request_id=request["id"],
        session=session,
        user=user,
    )


def _shown(route: Route) -> dict[str, Any]:
    """Write a route as proxy.conf.json does; what `setHeaders` sets may be a secret."""
    return {
        "match": route.match,
        "type": route.type,
        "name": route.name,
        "remotePort": route.remote_port,
        "ws": route.ws,
        "pathRewrite": {rule.pattern: rule.replacement for rule in route.path_rewrite},
        "remoteScheme": route.remote_scheme,
        "remoteCa": route.remote_ca,
        "remoteVerify": route.remote_verify,
        "setHeaders": {
            name: value if PLACEHOLDER.fullmatch(value) else _MASK for name, value in route.set_headers
        },
        "maxBodyBytes": route.max_body_bytes,
        "stripCredentials": route.strip_credentials,
    }


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [*value] if isinstance(value, tuple) else str(value)
