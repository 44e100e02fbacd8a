"""The parts of one control process: made of its configuration, and tied together.

What a worker says goes from here to those whom it concerns; what is to be ended goes to the workers.
"""

import socket
import time
from collections.abc import Callable, Iterable

from visa_jupyter_proxy import logs, state
from visa_jupyter_proxy.control.admin.ending import end_here
from visa_jupyter_proxy.control.admin.listener import Admin
from visa_jupyter_proxy.control.admin.seen import Seen
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.control.configuration import Configuration
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import StorageRefused
from visa_jupyter_proxy.control.listener import CannotStart
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.spawner import Spawner
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


def make_journal(settings: Settings) -> Journal:
    """Make a journal, without opening it: each part that needs one has its own. Raises `CannotStart`."""
    try:
        return Journal(settings.storage_dir, settings.storage_url)
    except StorageRefused as refused:
        raise CannotStart(
            f"VISA_JUPYTER_PROXY_STORAGE_DIR: {refused} (VISA_JUPYTER_PROXY_STORAGE_URL)"
        ) from refused


class Parts:
    """All of them, from the first to the last moment; none is started or stopped here."""

    def __init__(
        self,
        configuration: Configuration,
        journal: Journal,
        listener: socket.socket,
        admin_socket: socket.socket,
        spawner: Spawner,
        *,
        is_draining: Callable[[], bool],
    ) -> None:
        """`journal` is the one of the notebooks; each socket becomes that of the part that listens on it.

        Needs a running loop. Raises `CannotStart`.
        """
        settings = configuration.settings
        self._sums = Sums()
        self.api = VisaApi(
            settings.api_base_url,
            ca_file=settings.for_worker().api_ca_file,
            timeout_s=settings.api_timeout_s,
            called=self._sums.api_called,
        )
        tokens = Tokens(time.monotonic)
        self.vigil = self._make_vigil(settings, tokens)
        self.notebooks = self._make_notebooks(settings, journal, tokens)
        self.upkeep = Upkeep(
            make_journal(settings),
            settings.storage_dir,
            linger_s=settings.session_linger_s,
            retention_days=settings.session_retention_days,
        )
        self.supervisor = Supervisor(
            configuration.start(),
            settings.workers,
            listener,
            spawner,
            received=self._received,
            lost=self._lost,
        )
        self._seen = Seen(
            settings=settings,
            routes=configuration.routes,
            sums=self._sums,
            supervisor=self.supervisor,
            notebooks=self.notebooks,
            vigil=self.vigil,
            api=self.api,
            is_draining=is_draining,
        )
        self.admin = Admin(self._seen, admin_socket, make_journal(settings))

    def _make_vigil(self, settings: Settings, tokens: Tokens) -> Vigil:
        journal = make_journal(settings)
        return Vigil(
            self.api,
            tokens,
            self._end_tunnels,
            journal=journal if journal.is_shared else None,
            recheck_s=settings.recheck_s,
            grace_s=settings.access_grace_s,
        )

    def _make_notebooks(self, settings: Settings, journal: Journal, tokens: Tokens) -> Notebooks:
        return Notebooks(
            journal,
            self.api,
            tokens=tokens,
            linger_s=settings.session_linger_s,
            owner_timeout_s=settings.owner_timeout_s,
            end=self._end,
        )

    def reload(self, configuration: Configuration) -> None:
        """Go by what may change while the process lives; the workers are told by `reloading`."""
        settings = self._seen.settings = configuration.settings
        self._seen.routes = configuration.routes
        self.vigil.reload(settings.recheck_s, settings.access_grace_s)

    def show_state(self) -> None:
        """Have every process write its state to the log."""
        workers = self.supervisor.workers
        state.write(
            state.ControlState(
                workers=len(workers),
                notebook_connections=self.notebooks.connections,
                journal=self.notebooks.journal_state,
                upkeep=self.upkeep.is_at_work,
                records_waiting=self.notebooks.records_waiting,
                reports_pending=self.notebooks.reports_pending,
                access_watched=self.vigil.watched,
                access_doubted=self.vigil.doubted,
                api_connections=self.api.connections,
            )
        )
        for worker in workers:
            worker.show_state()

    # --- from the workers, and to them -----------------------------------------------------

    def _received(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case TunnelOpened():
                self.notebooks.tunnel_opened(worker.number, message)
            case TunnelProgressed():
                self.notebooks.tunnel_progressed(worker.number, message)
            case TunnelEnded():
                self.notebooks.tunnel_ended(worker.number, message)
            case Counters():
                self._sums.add(worker.number, message)
            case TokenAccepted():
                self.notebooks.token_accepted(message)
                self.vigil.token_accepted(message)
            case AccessHeld():
                self.vigil.access_held(worker.number, message)
            case AccessReleased():
                self.vigil.access_released(worker.number, message)
            case _:
                logs.get().warning("unexpected message", message=type(message).__name__)

    def _lost(self, worker: WorkerProcess) -> None:
        self.notebooks.worker_lost(worker.number, time.time())
        self._sums.lost(worker.number)
        self.vigil.worker_lost(worker.number)

    def _end_tunnels(self, message: EndTunnels) -> None:
        self.supervisor.end_tunnels(message)

    def _end(self, ordered: Iterable[Ending]) -> None:
        end_here(self.supervisor, ordered)
