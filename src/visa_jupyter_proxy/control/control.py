"""Control: binds the socket, has workers serve on it, and owns what must not be lost.

One process, with the workers as its children. It lives from `run` to the first SIGTERM or SIGINT, or until
another process has taken its place; a second signal ends everything at once.
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
from visa_jupyter_proxy.control.configuration import Configuration, Read
from visa_jupyter_proxy.control.control_socket import Answer, Asks, ControlSocket, Reply
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import StorageRefused
from visa_jupyter_proxy.control.listener import CannotStart, Predecessor, fits, listen
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.reloading import Reloading, configure_logs, warn
from visa_jupyter_proxy.control.service_manager import ServiceManager
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
    TokenAccepted,
    TunnelEnded,
    TunnelOpened,
    TunnelProgressed,
)
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.visa_api import VisaApi

_SHARE_OF_WORKERS: Final = 0.8
"""The part of `DRAIN_S` that requests and tunnels get; the rest is for the journal and the reports."""


def _bind_admin(settings: Settings, predecessor: Predecessor | None) -> socket.socket:
    """Return the socket of the admin listener. Raises `CannotStart`."""
    passed_on = None if predecessor is None else predecessor.admin
    if passed_on is not None and fits(passed_on, settings.admin_host, settings.admin_port):
        return passed_on
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

    def __init__(self, configuration: Configuration, read: Read, *, take_over: bool = False) -> None:
        """`read` is asked for a configuration at each reload.

        `take_over`: from the process that runs on the same directory, if there is one.
        """
        self._configuration = configuration
        self._settings = configuration.settings
        """Those that hold now."""
        self._read = read
        self._take_over = take_over
        self._service_manager = ServiceManager()
        self._control_socket = ControlSocket(configuration.settings.storage_dir, self._answer)
        self._handed_over: tuple[socket.socket, ...] = ()
        """What a process gets that takes over: the listening socket, and the admin listener's."""
        self._reloading: Reloading | None = None
        """None while requests are not served, be it not yet or no longer."""
        self._reloads_later = False
        """Whether it was told to before."""
        self._replaced_by: int | None = None
        """The process that serves in our place."""
        self._supervisor: Supervisor | None = None
        self._notebooks: Notebooks | None = None
        self._sums = Sums()
        self._vigil: Vigil | None = None
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal says stop, or another process takes over. Raises `CannotStart`."""
        settings = self._settings
        self._catch_signals()
        journal = _journal(settings)
        predecessor = Predecessor.find(settings.storage_dir) if self._take_over else None
        listener = listen(settings, predecessor)
        admin_socket = _bind_admin(settings, predecessor)
        self._handed_over = (listener, admin_socket)
        api = VisaApi(
            settings.api_base_url,
            ca_file=settings.for_worker().api_ca_file,
            timeout_s=settings.api_timeout_s,
            called=self._sums.api_called,
        )
        tokens = Tokens(time.monotonic)
        vigil = self._vigil = self._make_vigil(api, tokens)
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
        loop.add_signal_handler(signal.SIGUSR1, self._show_state, notebooks, vigil, upkeep, api)
        self._notebooks = notebooks
        supervisor = self._supervisor = Supervisor(
            self._configuration.start(),
            settings.workers,
            listener,
            received=self._received,
            lost=self._lost,
        )
        seen = self._seen(supervisor, notebooks, vigil, api)
        admin = Admin(seen, admin_socket, _journal(settings))
        try:
            if predecessor is None:
                await admin.start()  # otherwise the predecessor answers until this process serves
            await self._begin(supervisor, listener, notebooks, upkeep)
            vigil.start()
            if not self._stop.is_set():
                await self._take_place(supervisor, seen, vigil, admin, predecessor)
                await self._serve()
            if self._replaced_by is not None:
                await admin.stop()  # the other process answers
            await upkeep.stop()
            await self._finish(listener, supervisor, vigil, notebooks)
        finally:
            await admin.stop()
            await api.close()
        logs.get().notice("stopped")

    async def _begin(
        self, supervisor: Supervisor, listener: socket.socket, notebooks: Notebooks, upkeep: Upkeep
    ) -> None:
        """Return when requests are served, or when a signal says stop. Raises `CannotStart`."""
        try:
            await self._first_workers(supervisor, listener)
        except CannotStart:
            await supervisor.stop(0)
            raise
        await notebooks.start()
        upkeep.start()

    async def _take_place(
        self,
        supervisor: Supervisor,
        seen: Seen,
        vigil: Vigil,
        admin: Admin,
        predecessor: Predecessor | None,
    ) -> None:
        """Be the one who is asked, and relieve the predecessor."""

        def changed(configuration: Configuration) -> None:
            self._settings = seen.settings = configuration.settings
            seen.routes = configuration.routes
            vigil.reload(self._settings.recheck_s, self._settings.access_grace_s)

        self._reloading = Reloading(
            self._configuration, self._read, supervisor, self._service_manager, changed
        )
        self._control_socket.open(replace=predecessor is not None)
        if predecessor is not None:
            await admin.start()
            await predecessor.relieve()

    async def _serve(self) -> None:
        """Return when it is time to stop."""
        self._service_manager.ready("serving")
        if self._reloads_later:
            self._hung_up()
        await self._stop.wait()
        self._reloading = None
        await self._control_socket.close()
        if self._replaced_by is None:
            self._service_manager.stopping()

    def _seen(self, supervisor: Supervisor, notebooks: Notebooks, vigil: Vigil, api: VisaApi) -> Seen:
        return Seen(
            settings=self._settings,
            routes=self._configuration.routes,
            sums=self._sums,
            supervisor=supervisor,
            notebooks=notebooks,
            vigil=vigil,
            api=api,
            is_draining=self._stop.is_set,
        )

    def _upkeep(self) -> Upkeep:
        settings = self._settings
        return Upkeep(
            _journal(settings),
            settings.storage_dir,
            linger_s=settings.session_linger_s,
            retention_days=settings.session_retention_days,
        )

    def _make_vigil(self, api: VisaApi, tokens: Tokens) -> Vigil:
        settings = self._settings
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
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

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

    async def _answer(self, ask: Asks, pid: int) -> Reply:
        """Answer a question at the control socket."""
        reloading = self._reloading
        if reloading is None:
            return Reply(Answer(done=False, lines=("It is stopping: nothing has changed.",)))
        match ask:
            case "reload":
                return Reply(reloading.reload())
            case "hand over":
                return Reply(Answer(), self._handed_over)
            case "drain":
                logs.get().notice("stopping", replaced_by=pid, seconds=self._settings.drain_s)
                self._replaced_by = pid
                self._service_manager.replaced(pid)
                self._stop.set()
                return Reply(Answer())

    def _hung_up(self) -> None:
        if self._reloading is None:
            self._reloads_later = True
        else:
            self._reloading.reload()

    def _show_state(self, notebooks: Notebooks, vigil: Vigil, upkeep: Upkeep, api: VisaApi) -> None:
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
                access_watched=vigil.watched,
                access_doubted=vigil.doubted,
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
        assert self._vigil is not None  # noqa: S101 -- likewise
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
                self._vigil.token_accepted(message)
            case AccessHeld():
                self._vigil.access_held(worker.number, message)
            case AccessReleased():
                self._vigil.access_released(worker.number, message)
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def _end_tunnels(self, message: EndTunnels) -> None:
        if self._supervisor is not None:
            self._supervisor.end_tunnels(message)

    def _end(self, ending: Ending) -> None:
        assert self._supervisor is not None  # noqa: S101 -- made before the journal is looked at
        end_here(self._supervisor, ending)

    def _lost(self, worker: WorkerProcess) -> None:
        assert self._notebooks is not None  # noqa: S101 -- likewise
        assert self._vigil is not None  # noqa: S101 -- likewise
        self._notebooks.worker_lost(worker.number, time.time())
        self._sums.lost(worker.number)
        self._vigil.worker_lost(worker.number)

    # --- the end ---------------------------------------------------------------------------

    async def _finish(
        self, listener: socket.socket, supervisor: Supervisor, vigil: Vigil, notebooks: Notebooks
    ) -> None:
        """Stop accepting, let the workers finish, then write down what is left, all within `DRAIN_S`."""
        until = time.monotonic() + self._settings.drain_s
        listener.close()
        await supervisor.stop(self._settings.drain_s * _SHARE_OF_WORKERS)
        await vigil.stop()  # not before: a long drain has tunnels, too
        await notebooks.stop(max(0.0, until - time.monotonic() - 0.5))


def run(read: Read, *, take_over: bool = False) -> None:
    """Run the proxy until it is told to stop. Raises `CannotStart`, and `ConfigurationError` at the start."""
    configuration = read()
    configure_logs(configuration.settings)
    warn(configuration)

    async def live() -> None:
        await Control(configuration, read, take_over=take_over).run()

    asyncio.run(live())
