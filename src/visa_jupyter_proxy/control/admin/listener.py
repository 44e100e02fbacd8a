"""Binds the admin listener and serves: which path is answered by what, and nothing else."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from visa_jupyter_proxy import logs, metrics
from visa_jupyter_proxy.control.admin import board, health
from visa_jupyter_proxy.control.admin.access import Access
from visa_jupyter_proxy.control.admin.answers import Refused, new_request_id, sign
from visa_jupyter_proxy.control.admin.api import PREFIX as API
from visa_jupyter_proxy.control.admin.api import Api
from visa_jupyter_proxy.control.admin.connection import Answering, Runner
from visa_jupyter_proxy.control.admin.ending import Endings
from visa_jupyter_proxy.control.admin.events import Events
from visa_jupyter_proxy.control.admin.exposition import Exposition
from visa_jupyter_proxy.control.admin.history import History
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.control.admin.sessions import OpenSessions
from visa_jupyter_proxy.control.admin.turns import Turns
from visa_jupyter_proxy.control.binding import bound, why_not
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.settings import PREFIX, Settings

_LOOK_S: Final = 1.0
_SHUTDOWN_S: Final = 0.5
_LARGEST_BODY: Final = 1024
"""Nothing that is asked here has a body; some programs send an empty object all the same."""

_LONGEST_PATH: Final = 256
"""Of what is logged."""

_BACKLOG: Final = 64


class AdminPortBusy(Exception):
    """The address and port cannot be listened on; the text is for the operator."""


def bind(settings: Settings) -> socket.socket:
    """Bind and listen. Raises `AdminPortBusy`.

    When nobody has chosen the port and it is in use, another one is taken: several proxies on a machine,
    with configurations that know nothing of an admin listener, all start.
    """
    host, port = settings.admin_host, settings.admin_port
    try:
        return bound(host, port, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and "admin_port" not in settings.model_fields_set:
            logs.get().warning(
                "the admin port is in use: another one is taken; set ADMIN_PORT to choose", port=port
            )
            return bound(host, 0, backlog=_BACKLOG)
        raise AdminPortBusy(
            f"cannot listen on {host} port {port} for administration: {why_not(error)}; change "
            f"{PREFIX}ADMIN_HOST or {PREFIX}ADMIN_PORT (0 takes a free port), or stop what uses it"
        ) from error


class Admin:
    """The admin listener of one control process, from `start` to `stop`."""

    def __init__(self, seen: Seen, sock: socket.socket, journal: Journal) -> None:
        """`sock` is what `bind` gave, `journal` the listener's own; both are closed by `stop`."""
        self._seen = seen
        self._sock = sock
        self._access = Access(seen.settings.admin_host, seen.settings.admin_token)
        self._exposition = Exposition(seen)
        self._journal = Turns(journal)
        sessions = OpenSessions(self._journal, seen.notebooks, seen.supervisor)
        self._history = History(seen.sums)
        self._events = Events(seen, sessions, self._history, self._journal)
        endings = Endings(self._journal, seen.notebooks, seen.supervisor, seen.vigil)
        self._api = Api(seen, sessions, endings)
        self._runner = Runner(self._application(), self._around, shutdown_timeout=_SHUTDOWN_S)
        self._look: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve, and say where."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._sock).start()
        self._look = asyncio.create_task(self._look_on(), name="admin")
        host, port = self._sock.getsockname()[:2]
        logs.get().notice(
            "admin listening",
            host=host,
            port=port,
            token="required" if self._seen.settings.admin_token is not None else "none",
        )

    async def stop(self) -> None:
        """Serve no more."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._runner.cleanup()
        await self._journal.close()
        self._sock.close()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/health/live", self._live)
        application.router.add_get("/health/ready", self._ready)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/", self._board)
        application.router.add_get(f"{API}/events", self._events.stream)
        self._api.add_to(application.router)
        application.on_shutdown.append(self._end_streams)
        return application

    async def _around(self, answer: Answering, request: web.BaseRequest) -> web.StreamResponse:
        """Answer, or say why not; whatever happens, there is an answer that is ours."""
        request_id = request["id"] = new_request_id()
        try:
            self._access.check(request)
            if (request.content_length or 0) > _LARGEST_BODY:
                raise web.HTTPRequestEntityTooLarge(_LARGEST_BODY)  # noqa: TRY301 -- as aiohttp would
            response = await answer(request)
        except Refused as refused:
            response = self._refused(request, refused)
        except web.HTTPException as refusal:
            response = self._refused(request, Refused.by_aiohttp(refusal))
        except Exception:  # no request is left without an answer
            if request.writer.output_size:
                raise  # a part of the answer is sent: aiohttp ends the connection
            logs.get().error("defect while administrating", request_id=request_id, exc_info=True)
            message = "Something went wrong here. It has been recorded."
            response = Refused(500, "internal", message).response(request_id)
        if not response.prepared:
            sign(response, request_id)
        return response

    def _refused(self, request: web.BaseRequest, refused: Refused) -> web.StreamResponse:
        _teller(refused.status)(
            "an administrator is not served",
            client=request.remote if self._seen.settings.log_client_address else None,
            request_id=request["id"],
            method=request.method,
            path=logs.without_tokens(request.path[:_LONGEST_PATH]),
            status=refused.status,
            reason=refused.error,
            cause=refused.cause,
        )
        return refused.response(request["id"])

    async def _board(self, _request: web.Request) -> web.StreamResponse:
        return board.page()

    async def _end_streams(self, _application: web.Application) -> None:
        self._events.end()

    async def _live(self, _request: web.Request) -> web.StreamResponse:
        return health.respond(health.live())

    async def _ready(self, _request: web.Request) -> web.StreamResponse:
        return health.respond(health.ready(self._seen))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        body, content_type = self._exposition.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _look_on(self) -> None:
        """Once a second: how late is this loop, and how is the VISA API."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            late_s = max(0.0, loop.time() - due)
            self._seen.sums.observe(metrics.LOOP_SECONDS, ("control",), late_s)
            self._seen.look_at_api()
            self._history.tick(time.time())


def _teller(status: int) -> Callable[..., None]:
    return logs.get().warning if status >= 500 else logs.get().notice
