"""Control: binds the socket, has workers serve on it, and owns what must not be lost.

One process, with the workers as its children. It lives from `run` to the first SIGTERM or SIGINT; a
second one ends everything at once.
"""

import asyncio
import os
import signal
import socket
import time
from typing import Final

from visa_jupyter_proxy import __version__, logs, state
from visa_jupyter_proxy.control import owners
from visa_jupyter_proxy.control.admin.ending import end_here
from visa_jupyter_proxy.control.admin.listener import Admin, AdminPortBusy
from visa_jupyter_proxy.control.admin.listener import bind as bind_admin
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import StorageRefused
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.control.tokens import Tokens
from visa_jupyter_proxy.control.upkeep import Upkeep
from visa_jupyter_proxy.control.vigil import Vigil
from visa_jupyter_proxy.control.workers import WorkerProcess
from visa_jupyter_proxy.mailbox import (
    AccessHeld,
    AccessReleased,
    Counters,
    EndTunnels,
    Message,
    Page,
    Start,
    TokenAccepted,
    TunnelEnded,
    TunnelOpened,
    TunnelProgressed,
)
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.visa_api import VisaApi

_BACKLOG: Final = 4096
"""Connections that wait to be accepted: Linux's net.core.somaxconn."""

_SHARE_OF_WORKERS: Final = 0.8
"""The part of `DRAIN_S` that requests and tunnels get; the rest is for the journal and the reports."""


class CannotStart(Exception):
    """What stops the program from starting, in words for the operator."""


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises `CannotStart`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "change VISA_JUPYTER_PROXY_SERVER_HOST or VISA_JUPYTER_PROXY_SERVER_PORT, or stop what uses it"
        ) from error


def _bind_admin(settings: Settings) -> socket.socket:
    """Bind the admin listener. Raises `CannotStart`."""
    try:
        return bind_admin(settings)
    except AdminPortBusy as busy:
        raise CannotStart(str(busy)) from busy


def _journal(settings: Settings) -> Journal:
    """Make the journal, without opening it. Raises `CannotStart`."""
    try:
        return Journal(settings.storage_dir, settings.storage_url)
    except StorageRefused as refused:
        raise CannotStart(
            f"VISA_JUPYTER_PROXY_STORAGE_DIR: {refused} (VISA_JUPYTER_PROXY_STORAGE_URL)"
        ) from refused


class Control:
    """The parts of the control process, tied together."""

    def __init__(
        self, settings: Settings, routes: tuple[Route, ...], pages: dict[str, dict[str, Page]]
    ) -> None:
        self._settings = settings
        self._start = Start(settings=settings.for_worker(), routes=routes, pages=pages)
        """For all workers together: the supervisor gives each its part."""
        self._supervisor: Supervisor | None = None
        self._notebooks: Notebooks | None = None
        self._sums = Sums()
        self._vigil: Vigil | None = None
        """None before the start, and when `RECHECK_S` is 0."""
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal says stop. Raises `CannotStart`."""
        settings = self._settings
        self._catch_signals()
        journal = _journal(settings)
        listener = bind(settings.server_host, settings.server_port)
        admin_socket = _bind_admin(settings)
        api = VisaApi(
            settings.api_base_url,
            ca_file=self._start.settings.api_ca_file,
            timeout_s=settings.api_timeout_s,
            called=self._sums.api_called,
        )
        tokens = Tokens(time.monotonic)
        self._vigil = self._make_vigil(api, tokens)
        notebooks = Notebooks(
            journal,
            api,
            tokens=tokens,
            linger_s=settings.session_linger_s,
            heartbeat_s=owners.heartbeat_s(settings.owner_timeout_s),
            owner_timeout_s=settings.owner_timeout_s,
            end=self._end,
        )
        upkeep = self._upkeep()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._show_state, notebooks, upkeep, api)
        self._notebooks = notebooks
        supervisor = self._supervisor = Supervisor(
            self._start, settings.workers, listener, received=self._received, lost=self._lost
        )
        admin = self._admin(supervisor, notebooks, api, admin_socket)
        try:
            await admin.start()
            await self._serve(listener, supervisor, notebooks, upkeep)
        finally:
            await admin.stop()
            await api.close()
        logs.get().notice("stopped")

    def _admin(
        self, supervisor: Supervisor, notebooks: Notebooks, api: VisaApi, listener: socket.socket
    ) -> Admin:
        seen = Seen(
            settings=self._settings,
            routes=self._start.routes,
            sums=self._sums,
            supervisor=supervisor,
            notebooks=notebooks,
            vigil=self._vigil,
            api=api,
            is_draining=self._stop.is_set,
        )
        return Admin(seen, listener, _journal(self._settings))

    async def _serve(
        self, listener: socket.socket, supervisor: Supervisor, notebooks: Notebooks, upkeep: Upkeep
    ) -> None:
        try:
            await self._first_workers(supervisor, listener)
        except CannotStart:
            await supervisor.stop(0)
            raise
        await notebooks.start()
        upkeep.start()
        if self._vigil is not None:
            self._vigil.start()
        await self._stop.wait()
        await upkeep.stop()
        if self._vigil is not None:
            await self._vigil.stop()
        await self._finish(listener, supervisor, notebooks)

    def _upkeep(self) -> Upkeep:
        settings = self._settings
        return Upkeep(
            _journal(settings),
            settings.storage_dir,
            linger_s=settings.session_linger_s,
            retention_days=settings.session_retention_days,
        )

    def _make_vigil(self, api: VisaApi, tokens: Tokens) -> Vigil | None:
        settings = self._settings
        if not settings.recheck_s:
            return None
        journal = _journal(settings)
        return Vigil(
            api,
            tokens,
            self._end_tunnels,
            journal=journal if journal.is_shared else None,
            recheck_s=settings.recheck_s,
            grace_s=settings.access_grace_s,
        )

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals == 1:
            logs.get().notice("stopping", signal=number.name, seconds=self._settings.drain_s)
            self._stop.set()
        else:
            logs.get().warning("stopping at once", signal=number.name)
            if self._supervisor is not None:
                self._supervisor.kill()
            os._exit(128 + number)  # what is committed to the journal is kept, and goes on from there

    def _show_state(self, notebooks: Notebooks, upkeep: Upkeep, api: VisaApi) -> None:
        """Have every process write its state to the log."""
        workers = [] if self._supervisor is None else self._supervisor.workers
        state.write(
            state.ControlState(
                workers=len(workers),
                notebook_connections=notebooks.connections,
                journal=notebooks.journal_state,
                upkeep=upkeep.is_at_work,
                records_waiting=notebooks.records_waiting,
                reports_pending=notebooks.reports_pending,
                access_watched=0 if self._vigil is None else self._vigil.watched,
                access_doubted=0 if self._vigil is None else self._vigil.doubted,
                api_connections=api.connections,
            )
        )
        for worker in workers:
            worker.show_state()

    # --- the workers -----------------------------------------------------------------------

    async def _first_workers(self, supervisor: Supervisor, listener: socket.socket) -> None:
        """Return when they accept connections, or when a signal says stop. Raises `CannotStart`."""
        starting = asyncio.create_task(supervisor.start())
        told_to_stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([starting, told_to_stop], return_when=asyncio.FIRST_COMPLETED)
        told_to_stop.cancel()
        if self._stop.is_set():
            return  # `starting` ends with the workers
        try:
            serving = await starting
        except OSError as error:
            raise CannotStart(f"no memory that the workers could share: {error.strerror}") from error
        if not serving:
            raise CannotStart("no worker process did start; its own message stands above")
        host, port = listener.getsockname()[:2]
        logs.get().notice(
            "listening",
            host=host,
            port=port,
            api=self._settings.api_base_url,
            version=__version__,
            workers=supervisor.places,
        )

    def _received(self, worker: WorkerProcess, message: Message) -> None:
        assert self._notebooks is not None  # noqa: S101 -- made before any worker
        match message:
            case TunnelOpened():
                self._notebooks.tunnel_opened(worker.number, message)
            case TunnelProgressed():
                self._notebooks.tunnel_progressed(worker.number, message)
            case TunnelEnded():
                self._notebooks.tunnel_ended(worker.number, message)
            case Counters():
                self._sums.add(worker.number, message)
            case TokenAccepted():
                self._notebooks.token_accepted(message)
                if self._vigil is not None:
                    self._vigil.token_accepted(message)
            case AccessHeld() | AccessReleased():
                self._access_changed(worker, message)
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def _access_changed(self, worker: WorkerProcess, message: AccessHeld | AccessReleased) -> None:
        if self._vigil is None:
            return
        match message:
            case AccessHeld():
                self._vigil.access_held(worker.number, message)
            case AccessReleased():
                self._vigil.access_released(worker.number, message)

    def _end_tunnels(self, message: EndTunnels) -> None:
        if self._supervisor is not None:
            self._supervisor.end_tunnels(message)

    def _end(self, ending: Ending) -> None:
        assert self._supervisor is not None  # noqa: S101 -- made before the journal is looked at
        end_here(self._supervisor, ending)

    def _lost(self, worker: WorkerProcess) -> None:
        assert self._notebooks is not None  # noqa: S101 -- likewise
        self._notebooks.worker_lost(worker.number, time.time())
        self._sums.lost(worker.number)
        if self._vigil is not None:
            self._vigil.worker_lost(worker.number)

    # --- the end ---------------------------------------------------------------------------

    async def _finish(self, listener: socket.socket, supervisor: Supervisor, notebooks: Notebooks) -> None:
        """Stop accepting, let the workers finish, then write down what is left, all within `DRAIN_S`."""
        until = time.monotonic() + self._settings.drain_s
        listener.close()
        await supervisor.stop(self._settings.drain_s * _SHARE_OF_WORKERS)
        await notebooks.stop(max(0.0, until - time.monotonic() - 0.5))


def run(settings: Settings, routes: tuple[Route, ...], pages: dict[str, dict[str, Page]]) -> None:
    """Run the proxy until it is told to stop. Raises `CannotStart`."""

    async def live() -> None:
        await Control(settings, routes, pages).run()

    asyncio.run(live())
