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

from visa_jupyter_proxy import __version__, garbage, logs
from visa_jupyter_proxy.control.admin.listener import AdminPortBusy
from visa_jupyter_proxy.control.admin.listener import bind as bind_admin
from visa_jupyter_proxy.control.caller import Answer, Asks, Reply
from visa_jupyter_proxy.control.configuration import Configuration, Read
from visa_jupyter_proxy.control.control_socket import ControlSocket
from visa_jupyter_proxy.control.listener import CannotStart, Predecessor, fits, listen
from visa_jupyter_proxy.control.parts import Parts, make_journal
from visa_jupyter_proxy.control.reloading import Reloading, configure_logs, warn
from visa_jupyter_proxy.control.service_manager import ServiceManager
from visa_jupyter_proxy.control.spawner import Spawner, give_way, take_all_descriptors
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.settings import Settings

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


class Control:
    """The life of the control process: its begin, what it is told and asked meanwhile, its end."""

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
        self._has_begun = asyncio.Event()
        """Requests are served, or have been; questions that come before wait for it."""
        self._reloading: Reloading | None = None
        """None while requests are not served, be it not yet or no longer."""
        self._reloads_later = False
        """Whether it was told to before."""
        self._replaced_by: int | None = None
        """The process that serves in our place."""
        self._parts: Parts | None = None
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal says stop, or another process takes over. Raises `CannotStart`."""
        settings = self._settings
        spawner = Spawner()
        give_way()
        take_all_descriptors()
        self._catch_signals()
        journal = make_journal(settings)
        predecessor = Predecessor.find(settings.storage_dir) if self._take_over else None
        listener = listen(settings, predecessor)
        admin_socket = _bind_admin(settings, predecessor)
        self._handed_over = (listener, admin_socket)
        parts = self._parts = Parts(
            self._configuration, journal, listener, admin_socket, spawner, is_draining=self._stop.is_set
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, parts.show_state)
        try:
            if predecessor is None:  # otherwise the predecessor answers until this process serves
                await parts.admin.start()
                self._control_socket.open(replace=False)
            await self._begin(parts, listener)
            if not self._stop.is_set():
                await self._take_place(parts, predecessor)
                await self._serve()
            self._has_begun.set()  # else nobody learns that it stops before it has served
            if self._replaced_by is not None:
                await self._control_socket.close()  # the other process answers
                await parts.admin.stop()  # likewise
            await parts.upkeep.stop()
            await self._finish(parts, listener)
        finally:
            await self._control_socket.close()
            await parts.admin.stop()
            await parts.api.close()
        logs.get().notice("stopped")

    async def _begin(self, parts: Parts, listener: socket.socket) -> None:
        """Return when requests are served, or when a signal says stop. Raises `CannotStart`."""
        try:
            await self._first_workers(parts.supervisor, listener)
        except CannotStart:
            await parts.supervisor.stop(0)
            raise
        await parts.notebooks.start()
        parts.upkeep.start()
        parts.vigil.start()

    async def _take_place(self, parts: Parts, predecessor: Predecessor | None) -> None:
        """Be the one who is asked, and relieve the predecessor."""

        def changed(configuration: Configuration) -> None:
            self._settings = configuration.settings
            parts.reload(configuration)

        self._reloading = Reloading(
            self._configuration, self._read, parts.supervisor, self._service_manager, changed
        )
        self._has_begun.set()
        if predecessor is not None:
            self._control_socket.open(replace=True)
            await parts.admin.start()
            await predecessor.relieve()

    async def _serve(self) -> None:
        """Return when it is time to stop."""
        garbage.settle()
        self._service_manager.ready("serving")
        if self._reloads_later:
            self._hung_up()
        await self._stop.wait()
        self._reloading = None
        if self._replaced_by is None:
            self._service_manager.stopping()

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
            if self._parts is not None:
                self._parts.supervisor.kill()
            os._exit(128 + number)  # what is committed to the journal is kept, and goes on from there

    async def _answer(self, ask: Asks, pid: int) -> Reply:
        """Answer a question at the control socket, when requests are served."""
        await self._has_begun.wait()
        reloading = self._reloading
        if reloading is None:
            return Reply(Answer(is_stopping=True))
        match ask:
            case "greet":
                return Reply(Answer())
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

    # --- the end ---------------------------------------------------------------------------

    async def _finish(self, parts: Parts, listener: socket.socket) -> None:
        """Stop accepting, let the workers finish, then write down what is left, all within `DRAIN_S`."""
        until = time.monotonic() + self._settings.drain_s
        listener.close()
        await parts.supervisor.stop(self._settings.drain_s * _SHARE_OF_WORKERS)
        await parts.vigil.stop()  # not before: a long drain has tunnels, too
        await parts.notebooks.stop(max(0.0, until - time.monotonic() - 0.5))


def run(read: Read, *, take_over: bool = False) -> None:
    """Run the proxy until it is told to stop. Raises `CannotStart`, and `ConfigurationError` at the start."""
    configuration = read()
    configure_logs(configuration.settings)
    warn(configuration)

    async def live() -> None:
        await Control(configuration, read, take_over=take_over).run()

    asyncio.run(live())
