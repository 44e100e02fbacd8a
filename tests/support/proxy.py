"""The real proxy, as an operator runs it: a process with its environment and its `proxy.conf.json`.

with running_proxy(tmp_path, api_url=api.url, routes=[...], IDLE_TIMEOUT_S="5") as proxy:
    proxy.port, proxy.pid, proxy.worker_pid
    proxy.records("request")       # what it has logged, as dictionaries
    proxy.states()                 # what its processes have open and under way
    proxy.wait(lambda: ...)        # for a condition, a minute at most
    proxy.stop()                   # SIGTERM; the exit status
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from support.usage import State, states

PREFIX: Final = "VISA_JUPYTER_PROXY_"

_PATIENCE_S: Final = 60.0
"""Far more than anything takes, for a machine that is busy with ten other things."""


class RunningProxy:
    """A proxy process in `directory`, where its log, its configuration and its journal are."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        under: Sequence[str] = (),
        *,
        options: Sequence[str] = (),
        log_name: str = "proxy.log",
    ) -> None:
        self.directory = directory
        self.log = directory / log_name
        self._environment = environment
        self._under = under
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*under, sys.executable, "-m", "visa_jupyter_proxy", "serve", *options],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.port = 0

    def wait_until_it_listens(self) -> None:
        """Wait for the line that says so, and learn the port from it."""
        self.wait(lambda: self.records("listening") or self._process.poll() is not None)
        if not self.records("listening"):
            raise AssertionError(f"the proxy did not start:\n{self.log.read_text()}")
        self.port = int(self.records("listening")[-1]["port"])

    @property
    def admin_port(self) -> int:
        """The port of the admin listener, as the log says."""
        return int(self.records("admin listening")[-1]["port"])

    @property
    def worker_pid(self) -> int:
        """The process id of the worker that is alive, or of the youngest."""
        children = self.worker_pids
        assert children, "no worker"
        return children[-1]

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of all workers that are alive, the oldest first."""
        children: list[int] = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # it has ended meanwhile: it is not the one that starts workers
                children += map(int, (thread / "children").read_text().split())
        return children

    def records(self, event: str) -> list[dict[str, Any]]:
        """Give what has been logged under this name."""
        lines = self.log.read_text().splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [record for record in parsed if record.get("event") == event]

    def states(self) -> list[State]:
        """Ask all its processes for their state, as an operator does: control first, then the workers."""
        return states(self.pid, self.log)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; fail when it does not within a minute."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; the log:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the control process."""
        self._process.send_signal(number)

    def exit_status(self) -> int:
        """Wait for the end of the process."""
        return self._process.wait(_PATIENCE_S)

    def is_alive(self) -> bool:
        """Whether the control process runs."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Tell it to stop, as a service manager does, and give the exit status."""
        if self.is_alive():
            self.signal(signal.SIGTERM)
        return self.exit_status()

    def kill(self) -> None:
        """End it as a power failure would: control and worker at once."""
        if self.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE_S)

    def start_successor(self, **settings: str) -> "RunningProxy":
        """Start the process that takes over; return when it listens, whereupon this one drains."""
        environment = {**self._environment, **{PREFIX + name: value for name, value in settings.items()}}
        successor = RunningProxy(
            self.directory,
            environment,
            self._under,
            options=("--take-over",),
            log_name=f"{self.log.stem}-next.log",
        )
        successor.wait_until_it_listens()
        return successor

    def start_again(self) -> "RunningProxy":
        """Start a new process in the same directory, with the same environment."""
        self.log.rename(self.log.with_suffix(f".{self.pid}.log"))
        again = RunningProxy(self.directory, self._environment, self._under)
        again.wait_until_it_listens()
        return again


def runs(pid: int) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def environment(directory: Path, api_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a proxy for tests: loopback instances, a free port, every line logged."""
    chosen = {
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": "0",
        "ADMIN_PORT": "0",
        "API_URL": api_url,
        "INSTANCE_NETWORKS": "127.0.0.0/8,::1",
        "STORAGE_DIR": str(directory / "data"),
        "ACCESS_LOG": "all",
        # Tests that are not about it need not wait for closes.
        "SESSION_LINGER_S": "0",
        **settings,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | {PREFIX + name: value for name, value in chosen.items()}


@contextmanager
def running_proxy(
    directory: Path,
    *,
    api_url: str,
    routes: Sequence[Mapping[str, Any]],
    under: Sequence[str] = (),
    **settings: str,
) -> Iterator[RunningProxy]:
    """Run a proxy in `directory`; it is ended in any case, and must not have logged a traceback.

    `under` is a command that runs it, such as `prlimit --nofile=256`.
    """
    (directory / "proxy.conf.json").write_text(json.dumps(routes))
    proxy = RunningProxy(directory, environment(directory, api_url, settings), under)
    try:
        proxy.wait_until_it_listens()
        yield proxy
        assert "Traceback" not in proxy.log.read_text(), proxy.log.read_text()[-4000:]
    finally:
        proxy.kill()
