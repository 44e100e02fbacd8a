"""Control: binds the socket, starts and watches the worker, and owns what must not be lost.

One process, with the worker as its child. It lives from `run` to the first SIGTERM or SIGINT; a
second one ends everything at once.
"""

import asyncio
import os
import signal
import socket
import time
from typing import Final

from visa_jupyter_proxy import __version__, logs, state
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.workers import WorkerProcess
from visa_jupyter_proxy.mailbox import Message, Start, TunnelEnded, TunnelOpened
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.visa_api import VisaApi

_BACKLOG: Final = 4096
"""Connections that wait to be accepted: Linux's net.core.somaxconn."""

_START_S: Final = 30.0
"""How long a worker may take until it accepts connections."""

_FIRST_BACKOFF_S: Final = 0.1
_LARGEST_BACKOFF_S: Final = 10.0
_HEALTHY_S: Final = 60.0
"""A worker that lived so long did not die of its start."""

_SHARE_OF_WORKERS: Final = 0.7
"""The part of `DRAIN_S` that running requests get; the rest is for the journal and the reports."""


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


class Control:
    """The parts of the control process, tied together."""

    def __init__(self, settings: Settings, routes: tuple[Route, ...]) -> None:
        self._settings = settings
        self._start = Start(settings=settings.for_worker(), routes=routes)
        self._listener: socket.socket | None = None
        self._worker: WorkerProcess | None = None
        self._notebooks: Notebooks | None = None
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal says stop. Raises `CannotStart`."""
        settings = self._settings
        self._catch_signals()
        self._listener = bind(settings.server_host, settings.server_port)
        api = VisaApi(
            settings.api_base_url,
            ca_file=self._start.settings.api_ca_file,
            timeout_s=settings.api_timeout_s,
        )
        notebooks = Notebooks(Journal(settings.storage_dir), api)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._show_state, notebooks, api)
        try:
            await self._serve(notebooks)
        finally:
            await api.close()
        logs.get().notice("stopped")

    async def _serve(self, notebooks: Notebooks) -> None:
        self._notebooks = notebooks
        await self._first_worker()
        await notebooks.start()
        watch = asyncio.create_task(self._watch())
        await self._stop.wait()
        watch.cancel()
        await self._finish(notebooks)

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
            if self._worker is not None:
                self._worker.kill()
            os._exit(128 + number)  # what is committed to the journal is kept, and goes on from there

    def _show_state(self, notebooks: Notebooks, api: VisaApi) -> None:
        """Have every process write its state to the log."""
        workers = [worker for worker in (self._worker,) if worker is not None and worker.is_serving]
        state.write(
            state.ControlState(
                workers=len(workers),
                notebook_connections=notebooks.connections,
                journal=notebooks.journal_state,
                records_waiting=notebooks.records_waiting,
                reports_pending=notebooks.reports_pending,
                api_connections=api.connections,
            )
        )
        for worker in workers:
            worker.show_state()

    # --- the worker ------------------------------------------------------------------------

    async def _first_worker(self) -> None:
        worker = await self._start_worker()
        waiters = [asyncio.create_task(event.wait()) for event in (worker.ready, worker.gone, self._stop)]
        await asyncio.wait(waiters, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        if not worker.ready.is_set() and not self._stop.is_set():
            worker.kill()
            raise CannotStart("the worker process did not start; its own message stands above")
        settings = self._settings
        host, port = self._listening_socket().getsockname()[:2]
        logs.get().notice("listening", host=host, port=port, api=settings.api_base_url, version=__version__)

    async def _start_worker(self) -> WorkerProcess:
        worker = self._worker = WorkerProcess(self._received)
        await worker.start(self._listening_socket(), self._start)
        return worker

    def _listening_socket(self) -> socket.socket:
        assert self._listener is not None  # noqa: S101 -- bound first of all
        return self._listener

    async def _watch(self) -> None:
        """Start a worker anew whenever it has ended, more slowly when it does so again and again."""
        backoff = _FIRST_BACKOFF_S
        while self._worker is not None:
            worker = self._worker
            await worker.gone.wait()
            self._connections_of(worker)
            if time.monotonic() - worker.started_at > _HEALTHY_S:
                backoff = _FIRST_BACKOFF_S
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LARGEST_BACKOFF_S)
            try:
                await self._start_worker()
            except OSError as error:
                logs.get().error("cannot start a worker", error=error.strerror)

    def _received(self, worker: WorkerProcess, message: Message) -> None:
        assert self._notebooks is not None  # noqa: S101 -- made before any worker
        match message:
            case TunnelOpened():
                self._notebooks.tunnel_opened(worker.number, message)
            case TunnelEnded():
                self._notebooks.tunnel_ended(worker.number, message)
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def _connections_of(self, worker: WorkerProcess) -> None:
        assert self._notebooks is not None  # noqa: S101
        self._notebooks.worker_lost(worker.number, time.time())

    # --- the end ---------------------------------------------------------------------------

    async def _finish(self, notebooks: Notebooks) -> None:
        """Stop accepting, let the worker finish, then write down what is left, all within `DRAIN_S`."""
        until = time.monotonic() + self._settings.drain_s
        if self._listener is not None:
            self._listener.close()
        worker = self._worker
        if worker is not None:
            seconds = self._settings.drain_s * _SHARE_OF_WORKERS
            worker.drain(seconds)
            try:
                async with asyncio.timeout(seconds + 0.5):
                    await worker.gone.wait()
            except TimeoutError:
                worker.kill()
                await worker.gone.wait()
            self._connections_of(worker)
        await notebooks.stop(max(0.0, until - time.monotonic() - 0.5))


def run(settings: Settings, routes: tuple[Route, ...]) -> None:
    """Run the proxy until it is told to stop. Raises `CannotStart`."""

    async def live() -> None:
        await Control(settings, routes).run()

    asyncio.run(live())
