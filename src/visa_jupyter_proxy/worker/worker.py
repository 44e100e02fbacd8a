"""A worker: one process that moves bytes.

Control starts it with two inherited descriptors, the listening socket and its end of the mailbox, and
tells it everything else in the first message. It does what control says; when control is gone, it
drains and exits.
"""

import asyncio
import socket
from collections import Counter
from typing import Final

from visa_jupyter_proxy import logs, state
from visa_jupyter_proxy.mailbox import Drain, Mailbox, Message, Ping, Pong, Ready, ShowState, Start
from visa_jupyter_proxy.routes import Router
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.worker.admission import Admission
from visa_jupyter_proxy.worker.authorization import Authorization
from visa_jupyter_proxy.worker.downstream import Downstream
from visa_jupyter_proxy.worker.grant import InstanceNetworks
from visa_jupyter_proxy.worker.hangups import Hangups
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.sockets import Timed, keep_alive
from visa_jupyter_proxy.worker.tunnel import Tunnel
from visa_jupyter_proxy.worker.upstream import Upstream

_TICK_S: Final = 1.0

_DRAIN_LOOK_S: Final = 0.05
"""How often a draining worker looks whether it is done."""

_BACKLOG: Final = 4096
"""Connections that wait to be accepted: Linux's net.core.somaxconn."""


class Worker:
    """The parts of a worker, tied together, from the first message to the last connection."""

    def __init__(self, start: Start, listener: socket.socket, mailbox: Mailbox) -> None:
        settings = start.settings
        self.drain_s = settings.drain_s
        loop = self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._mailbox = mailbox
        self._connections: set[Timed] = set()
        self._hangups = Hangups(loop)
        self._api = VisaApi(
            settings.api_url,
            ca_file=settings.api_ca_file,
            timeout_s=settings.api_timeout_s,
            placeholders=Router(start.routes).placeholders,
        )
        self._authorization = Authorization(
            self._api,
            InstanceNetworks(settings.instance_networks),
            reuse_s=settings.cache_refresh_time_s,
            patience_s=settings.api_timeout_s,
            now=loop.time,
        )
        self._pool = Pool(
            loop,
            self._connections,
            self._hangups,
            connect_timeout_s=settings.connect_timeout_s,
            response_timeout_s=settings.response_timeout_s,
        )
        admission = Admission(
            settings.max_connections,
            settings.max_connections_per_address,
            pause=self._stop_accepting,
            resume=self._accept,
        )
        self._proxy = Proxy(
            settings,
            start.routes,
            authorization=self._authorization,
            pool=self._pool,
            hangups=self._hangups,
            admission=admission,
            tell=mailbox.send,
        )
        self._ended = loop.create_future()
        self._drain_until: float | None = None
        self._server: asyncio.Server | None = None
        self._accepts = True
        """Whether there is room for another client."""
        self._one_server = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until drained. Raises nothing that a connection could cause."""
        keep_alive(self._listener, self._proxy.settings.tcp_keepalive_s)
        await self._listen()
        self._loop.call_later(_TICK_S, self._tick)
        self._mailbox.send(Ready())
        await self._ended
        await self._authorization.close()
        await self._api.close()
        self._hangups.close()

    async def _listen(self) -> None:
        """Accept, on a descriptor of its own: that can be closed and leaves the queue as it is."""
        async with self._one_server:
            if self._server is None and self._has_room():
                self._server = await self._loop.create_server(
                    lambda: Downstream(self._proxy, self._connections),
                    sock=self._listener.dup(),
                    backlog=_BACKLOG,
                )
            if not self._has_room():
                self._close_server()

    def _has_room(self) -> bool:
        return self._accepts and self._drain_until is None

    def _accept(self) -> None:
        self._accepts = True
        self._listening = self._loop.create_task(self._listen())

    def _stop_accepting(self) -> None:
        """Leave new clients in the kernel's queue until some have gone."""
        self._accepts = False
        self._close_server()
        logs.get().warning("too many connections: others wait", connections=self._proxy.admission.most)

    def _close_server(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()

    @property
    def is_draining(self) -> bool:
        """Whether the worker has been told to end."""
        return self._drain_until is not None

    def drain(self, seconds: float) -> None:
        """Accept no more, end what is idle, let the rest finish within `seconds`."""
        if self._drain_until is not None:
            return
        self._drain_until = self._loop.time() + seconds
        self._close_server()
        self._listener.close()
        self._pool.close()
        for connection in [*self._connections]:
            connection.drain()
        self._look_for_end()

    def counts(self) -> state.WorkerState:
        """Count what is under way."""
        kinds = Counter(map(type, self._connections))
        return state.WorkerState(
            clients=self._proxy.admission.count,
            downstream=kinds[Downstream],
            upstream_busy=kinds[Upstream] - self._pool.idle_count,
            upstream_idle=self._pool.idle_count,
            tunnels=kinds[Tunnel],
            grants=self._authorization.grants_remembered,
            api_connections=self._api.connections,
        )

    def _tick(self) -> None:
        now = self._loop.time()
        self._loop.call_later(_TICK_S, self._tick)
        self._proxy.tick()
        self._authorization.tick(now)
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.expired(now)

    def _look_for_end(self) -> None:
        """Go when nothing is under way any more, or the time is over."""
        if self._drain_until is None or self._ended.done():
            return
        if not self._connections or self._loop.time() >= self._drain_until:
            self._ended.set_result(None)
        else:
            self._loop.call_later(_DRAIN_LOOK_S, self._look_for_end)


async def serve(listener: socket.socket, pipe: socket.socket) -> None:
    """Live the life of a worker process on the two inherited sockets."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[Start | None] = loop.create_future()
    worker: Worker | None = None

    def received(mailbox: Mailbox, message: Message) -> None:
        match message:
            case Start():
                started.set_result(message)
            case Ping(number=number):
                mailbox.send(Pong(number=number))
            case Drain(seconds=seconds) if worker is not None:
                worker.drain(seconds)
            case ShowState() if worker is not None:
                state.write(worker.counts())
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def lost() -> None:
        if not started.done():
            started.set_result(None)
        elif worker is not None and not worker.is_draining:
            logs.get().warning("control is gone: draining")
            worker.drain(worker.drain_s)

    mailbox = await Mailbox.open(pipe, received, lost)
    start = await started
    if start is None:
        return
    settings = start.settings
    logs.configure(
        settings.log_level,
        settings.log_timezone,
        settings.log_syslog_host,
        settings.log_syslog_port,
        settings.log_syslog_app_name,
    )
    worker = Worker(start, listener, mailbox)
    await worker.run()
    await mailbox.close()
