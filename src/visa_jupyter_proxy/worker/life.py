"""The life of a worker process: what control says, from the first message to the last."""

import asyncio
import socket

from visa_jupyter_proxy import garbage, logs, state
from visa_jupyter_proxy.mailbox import (
    Drain,
    EndTunnels,
    LookAtTunnels,
    Mailbox,
    Message,
    Ping,
    Pong,
    Reload,
    ShowState,
    Start,
    WorkerSettings,
)
from visa_jupyter_proxy.tally import Place, Tally
from visa_jupyter_proxy.worker.sockets.admission import make_room_for_descriptors
from visa_jupyter_proxy.worker.worker import Worker


class _Life:
    """What control says, from the first message to the last."""

    def __init__(self) -> None:
        self._started: asyncio.Future[Start] = asyncio.get_running_loop().create_future()
        self._is_over = False
        """Control has changed its mind, or is gone; perhaps before there is a worker."""
        self._worker: Worker | None = None
        self._reload: Reload | None = None
        """What came before there was one."""

    async def live(self, listener: socket.socket, pipe: socket.socket, tally: int | None) -> None:
        make_room_for_descriptors()
        mailbox = await Mailbox.open(pipe, self._received, self._lost)
        await asyncio.wait([self._started])
        if not self._is_over:
            start = self._started.result()
            _configure_logs(start.settings)
            place = None if tally is None else Place(Tally(tally, start.places), start.place)
            self._worker = Worker(start, listener, mailbox, place)
            if self._reload is not None:
                _reload(self._worker, self._reload)
            garbage.settle()
            await self._worker.run()
        await mailbox.close()

    def _received(self, mailbox: Mailbox, message: Message) -> None:
        match message:
            case Start():
                self._started.set_result(message)
            case Ping(number=number):
                mailbox.send(Pong(number=number))
            case Drain(seconds=seconds):
                self._end(seconds)
            case LookAtTunnels() if self._worker is not None:
                self._worker.look()
            case EndTunnels() if self._worker is not None:
                self._worker.end_tunnels(message)
            case Reload() if self._worker is not None:
                _reload(self._worker, message)
            case Reload():
                self._reload = message
            case ShowState() if self._worker is not None:
                state.write(self._worker.counts())
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def _lost(self) -> None:
        if self._worker is not None and not self._worker.is_draining:
            logs.get().warning("control is gone: draining")
        self._end(0 if self._worker is None else self._worker.drain_s)

    def _end(self, seconds: float) -> None:
        self._is_over = True
        if self._worker is not None:
            self._worker.drain(seconds)
        elif not self._started.done():
            self._started.cancel()


async def serve(listener: socket.socket, pipe: socket.socket, tally: int | None = None) -> None:
    """Live the life of a worker process on the two inherited sockets.

    `tally` is the descriptor of the memory that it shares with other workers, if there are any.
    """
    await _Life().live(listener, pipe, tally)


def _reload(worker: Worker, message: Reload) -> None:
    try:
        worker.reload(message)
    except OSError as error:
        logs.get().error("the new settings cannot be used: the old ones stay", cause=error.strerror)
    else:
        _configure_logs(message.settings)


def _configure_logs(settings: WorkerSettings) -> None:
    logs.configure(
        settings.log_level,
        settings.log_timezone,
        settings.log_syslog_host,
        settings.log_syslog_port,
        settings.log_syslog_app_name,
    )
