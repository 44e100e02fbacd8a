"""Connections of the admin listener: aiohttp's, but for what they say to who speaks no HTTP."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, override

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.admin.answers import Refused, new_request_id, sign

type Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
type Around = Callable[[Answering, web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request, by what is given or otherwise."""


class Connection(web.RequestHandler):
    """A connection. What comes on it that is no request is answered here, before there is an application."""

    __slots__ = ()

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        # aiohttp would log a traceback, and answer with the bytes that came: they may hold a token.
        refused = Refused(400, "bad_request", "The request is not valid HTTP.")
        request_id = new_request_id()
        logs.get().info("no HTTP at the admin listener", request_id=request_id, cause=type(exc).__name__)
        response = refused.response(request_id)
        sign(response, request_id)
        response.force_close()
        return response


class Runner(web.AppRunner):
    """Serves an application on such connections, with something `around` each of its answers."""

    __slots__ = ("_around",)

    def __init__(self, application: web.Application, around: Around, **options: Any) -> None:
        super().__init__(application, access_log=None, handle_signals=False, **options)
        self._around = around

    @override
    async def setup(self) -> None:
        await super().setup()
        server = super().server
        assert server is not None  # noqa: S101 -- that is what setup makes
        # Not a middleware: that is not asked where aiohttp refuses before there is a route (`Expect`).
        server.request_handler = partial(self._around, server.request_handler)

    @property
    @override
    def server(self) -> Any:
        server = super().server
        loop = asyncio.get_running_loop()
        return server and partial(Connection, server, loop=loop, access_log=None)  # type: ignore[arg-type]  # none
