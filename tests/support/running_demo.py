"""The demo as a user starts it, and a look at what VISA and the instances saw."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

COMMAND = [sys.executable, "-m", "visa_jupyter_proxy", "demo"]

DEADLINE_S = 60.0
"""Generous: it is only ever waited for when something is broken."""


def eventually[T](what: str, look: Callable[[], T | None]) -> T:
    """Return what `look` finds, as soon as it finds something; fail with `what` at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True)
class Answer:
    """A response; field names in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class RunningDemo:
    """A demo in a process of its own; at the end of its `with` block it has been stopped."""

    def __init__(self, process: subprocess.Popen[bytes], summary: Mapping[str, Any]) -> None:
        self.process = process
        self.proxy: str = summary["proxy"]
        self.visa: str = summary["visa"]
        self.board: str = summary["board"]
        self.instances: dict[int, dict[str, Any]] = {one["id"]: one for one in summary["instances"]}
        self.logs = Path(summary["logs"])

    @classmethod
    def start(cls, logs: Path, *, port: int = 0, api_port: int = 0, **settings: str) -> Self:
        """Start the demo on free ports, with such settings of the proxy; wait until it is ready."""
        logs.mkdir(parents=True, exist_ok=True)
        options = ["--json", "--port", str(port), "--api-port", str(api_port), "--logs", str(logs)]
        options += [f"--set={name}={value}" for name, value in settings.items()]
        with (logs / "demo.log").open("wb") as log:
            process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise AssertionError(f"the demo does not start:\n{(logs / 'demo.log').read_text()}")
        return cls(process, json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell the demo to stop, and return its status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the demo has ended, and return its status."""
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def proxy_pid(self) -> int:
        """The process id of the proxy: of its control, which is the demo's child."""
        for child in _children(self.process.pid):
            if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return child
        raise AssertionError("the demo has no proxy")

    def ask(self, path: str, *, cookie: str | None = None, bearer: str | None = None) -> Answer:
        """Ask the proxy for `path`, with a token as cookie or as Bearer."""
        fields = {}
        if cookie is not None:
            fields["Cookie"] = f"access_token={cookie}"
        if bearer is not None:
            fields["Authorization"] = f"Bearer {bearer}"
        connection = http.client.HTTPConnection(urlsplit(self.proxy).netloc, timeout=DEADLINE_S)
        try:
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def token(self, user: str, *, lifetime_s: int = 3600) -> str:
        """Return a fresh token of `user`, as signing in gives it."""
        url = f"{self.visa}/sign-in?user={user}&lifetime={lifetime_s}"
        with urlopen(url) as response:
            found = re.match(r"access_token=([^;]+)", response.headers["Set-Cookie"])
        assert found is not None
        return found[1]

    def give(self, instance_id: int, user: str) -> None:
        """Make `user` the owner of an instance; the one before is its member from then on."""
        url = f"{self.visa}/give?instance={instance_id}&user={user}"
        with urlopen(Request(url, method="POST")) as response:
            assert response.status == 200

    def last_seen_at(self, instance_id: int) -> str | None:
        """Tell when somebody has last used an instance, as VISA shows it to a member."""
        url = f"{self.visa}/api/account/instances/{instance_id}"
        request = Request(url, headers={"Authorization": f"Bearer {self.token('emmy')}"})
        with urlopen(request) as response:
            seen: str | None = json.load(response)["data"]["lastSeenAt"]
        return seen

    def recorded(self, what: str) -> list[dict[str, Any]]:
        """Return what VISA has recorded: `sessions` or `calls`, oldest first."""
        with urlopen(f"{self.visa}/{what}") as response:
            rows: list[dict[str, Any]] = json.load(response)
        return rows

    def seen_by_instance(self, instance_id: int, text: str) -> bool:
        """Tell whether the JupyterLab of an instance has got a request with `text` in its target."""
        return text in (self.logs / f"jupyter-{instance_id}.log").read_text()
