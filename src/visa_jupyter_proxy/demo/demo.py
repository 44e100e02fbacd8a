"""Starts everything, prints the links, and stops everything; nothing is left behind."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import web

from visa_jupyter_proxy.demo.accounts import ADA, EMMY, Tokens
from visa_jupyter_proxy.demo.jupyter import jupyterlab
from visa_jupyter_proxy.demo.pages import Pages
from visa_jupyter_proxy.demo.parts import Orphans, Part, PartFailed, first, free_port
from visa_jupyter_proxy.demo.visa import Instance, Visa

HOST: Final = "127.0.0.1"
"""Of the proxy and of VISA: one host, for the cookie; no name, for a name may mean ::1 as well."""

INSTANCE_HOSTS: Final = {1: "127.0.0.2", 2: "127.0.0.3"}
"""All of 127.0.0.0/8 is this machine on Linux, so each instance can have an address of its own."""

JUPYTER_PORT: Final = 8888

ADMIN_PORT: Final = 8089
"""Of the proxy's board; another one is taken when it is busy."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Addresses:
    """Where everything listens."""

    proxy_port: int
    api_port: int
    jupyter_port: int
    admin_port: int

    @property
    def proxy(self) -> str:
        """Base URL of the proxy."""
        return f"http://{HOST}:{self.proxy_port}"

    @property
    def board(self) -> str:
        """URL of the proxy's board."""
        return f"http://{HOST}:{self.admin_port}/"

    @property
    def visa(self) -> str:
        """Base URL of the stand-in VISA."""
        return f"http://{HOST}:{self.api_port}"

    def jupyter(self, instance_id: int) -> str:
        """Return the base URL of an instance's JupyterLab, past the proxy."""
        return f"http://{INSTANCE_HOSTS[instance_id]}:{self.jupyter_port}/jupyter/{instance_id}"


def run(
    *,
    port: int = 8088,
    api_port: int = 8086,
    logs: Path | None = None,
    as_json: bool = False,
    settings: Mapping[str, str] | None = None,
) -> int:
    """Run the demo until SIGINT, SIGTERM or SIGHUP, and return the exit status.

    `port` is the proxy's and `api_port` the stand-in VISA's; 0, or one that is taken, means another one.
    `logs` is a directory, made if need be, in which the output of all parts remains, with each request
    that a JupyterLab got. `as_json` prints the links as one line of JSON. `settings` are further ones of the
    proxy, by their names without the prefix.
    Status 0 when it was told to stop, 1 when a part failed, 2 when something is missing.
    """
    if find_spec("jupyterlab") is None:
        _say(
            "The demo runs a real JupyterLab, which is not installed:  pip install 'visa-jupyter-proxy[demo]'"
        )
        return 2
    orphans = Orphans()
    try:
        orphans.adopt()
        at = _addresses(port, api_port)
        asyncio.run(_until_told(at, logs, orphans, as_json=as_json, settings=settings or {}))
    except (PartFailed, OSError) as error:
        _say(str(error))
        return 1
    return 0


async def _until_told(
    at: Addresses, logs: Path | None, orphans: Orphans, *, as_json: bool, settings: Mapping[str, str]
) -> None:
    told = asyncio.Event()
    for number in _STOPPING:
        # Once is enough: what stops has its own deadline, and must not be interrupted.
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    with tempfile.TemporaryDirectory(prefix="visa-demo-") as folder:
        demo = _Demo(at, Path(folder), logs, as_json=as_json, settings=settings)
        try:
            await first(demo.run(), told.wait())
        finally:
            await demo.stop()
            orphans.kill()


class _Demo:
    def __init__(
        self, at: Addresses, folder: Path, logs: Path | None, *, as_json: bool, settings: Mapping[str, str]
    ) -> None:
        self._at = at
        self._as_json = as_json
        self._logs = logs or folder / "logs"
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PartFailed(f"{self._logs} cannot be a directory for logs: {error.strerror}") from error
        tokens = Tokens()
        self._visa = Visa(tokens, _instances())
        self._pages = web.AppRunner(
            Pages(self._visa, (ADA, EMMY), at.proxy).application(), access_log=None, shutdown_timeout=1.0
        )
        self._jupyters = {
            number: jupyterlab(
                number,
                host,
                at.jupyter_port,
                home=folder / f"instance-{number}",
                log=self._logs / f"jupyter-{number}.log",
                log_requests=logs is not None,
            )
            for number, host in INSTANCE_HOSTS.items()
        }
        self._proxy = _proxy(at, folder / "proxy", self._logs / "proxy.log", settings)

    async def run(self) -> None:
        """Start everything and say so; then wait for what should not happen. Raises `PartFailed`."""
        _say("Starting VISA (a stand-in), JupyterLab and the proxy ...")
        await self._pages.setup()
        await web.TCPSite(self._pages, HOST, self._at.api_port).start()
        _say(f"  VISA answers at {self._at.visa}")
        try:
            async with asyncio.TaskGroup() as group:
                for number, part in self._jupyters.items():
                    group.create_task(self._start(part, f"{self._at.jupyter(number)}/api/status"))
                group.create_task(self._start(self._proxy, f"{self._at.proxy}/"))
        except ExceptionGroup as failures:
            # One failure is enough to read; the others follow from it more often than not.
            raise failures.exceptions[0] from None
        self._announce()
        await first(*(part.watch() for part in (self._proxy, *self._jupyters.values())))

    async def stop(self) -> None:
        """Stop everything: the proxy first, so that it can still report what it ends."""
        _say("Stopping ...")
        await self._proxy.stop()
        await asyncio.gather(*(part.stop() for part in self._jupyters.values()))
        await self._pages.cleanup()

    async def _start(self, part: Part, url: str) -> None:
        await part.start()
        await part.answers(url)
        _say(f"  {part.name} answers at {url.removesuffix('/api/status')}")

    def _announce(self) -> None:
        if self._as_json:
            print(json.dumps(self._summary()), flush=True)  # noqa: T201 -- the command's output
            return
        print("\nReady. Open in a browser on this machine:\n")  # noqa: T201 -- likewise
        for instance in self._visa.instances.values():
            about = f"instance {instance.id} as {instance.owner.name} ({instance.state})"
            print(f"  {about:<44}{_sign_in(self._at, instance)}")  # noqa: T201 -- likewise
        print(f"  {'what VISA has recorded':<44}{self._at.visa}/")  # noqa: T201 -- likewise
        print(f"  {'the board: who is in, and how the proxy is':<44}{self._at.board}\n", flush=True)  # noqa: T201 -- likewise
        _say(f"Logs are in {self._logs}. Ctrl-C stops everything.")

    def _summary(self) -> dict[str, object]:
        instances = [
            {
                "id": instance.id,
                "state": instance.state,
                "owner": instance.owner.login,
                "signIn": _sign_in(self._at, instance),
                "url": f"{self._at.proxy}/jupyter/{instance.id}/lab",
            }
            for instance in self._visa.instances.values()
        ]
        return {
            "proxy": self._at.proxy,
            "visa": self._at.visa,
            "board": self._at.board,
            "instances": instances,
            "logs": str(self._logs),
        }


def _instances() -> list[Instance]:
    return [
        Instance(1, "Diffraction of ice", "ACTIVE", INSTANCE_HOSTS[1], {ADA: "OWNER"}),
        # Ada is a member here: the VISA API shows her this instance, but not its Jupyter.
        Instance(2, "Invariants", "ACTIVE", INSTANCE_HOSTS[2], {EMMY: "OWNER", ADA: "USER"}),
        Instance(3, "Reflectometry", "BUILDING", None, {ADA: "OWNER"}),
    ]


def _proxy(at: Addresses, folder: Path, log: Path, more: Mapping[str, str]) -> Part:
    folder.mkdir()
    routes = folder / "proxy.conf.json"
    routes.write_text(
        json.dumps(
            [
                {
                    "match": r"^/jupyter/(\d+).*",
                    "type": "jupyter",
                    "name": "Jupyter",
                    "remotePort": at.jupyter_port,
                    "ws": True,
                }
            ]
        )
    )
    settings = {
        "SERVER_HOST": HOST,
        "SERVER_PORT": str(at.proxy_port),
        "ADMIN_PORT": str(at.admin_port),
        "API_HOST": HOST,
        "API_PORT": str(at.api_port),
        "VISA_URL": at.visa,
        "INSTANCE_NETWORKS": "127.0.0.0/8",
        "STORAGE_DIR": str(folder / "data"),
        "CONFIG_FILE": str(routes),
        **more,
    }
    prefix = "VISA_JUPYTER_PROXY_"
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    env |= {prefix + name: value for name, value in settings.items()}
    # In a directory of its own, where no foreign .env is read.
    argv = [sys.executable, "-m", "visa_jupyter_proxy", "serve"]
    return Part("The proxy", argv, cwd=folder, env=env, log=log)


def _sign_in(at: Addresses, instance: Instance) -> str:
    return f"{at.visa}/sign-in?user={instance.owner.login}&next=/jupyter/{instance.id}/lab"


def _addresses(port: int, api_port: int) -> Addresses:
    return Addresses(
        proxy_port=_port("the proxy", port, [HOST]),
        api_port=_port("VISA", api_port, [HOST]),
        # Who lets the system choose the proxy's port runs several demos at once.
        admin_port=_port("the board", ADMIN_PORT if port else 0, [HOST]),
        jupyter_port=free_port(JUPYTER_PORT if port else 0, [*INSTANCE_HOSTS.values()]),
    )


def _port(who: str, wanted: int, hosts: Sequence[str]) -> int:
    port = free_port(wanted, hosts)
    if wanted not in (0, port):
        _say(f"Port {wanted} is in use: {who} takes {port}.")
    return port


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 -- the links on stdout are for programs too
