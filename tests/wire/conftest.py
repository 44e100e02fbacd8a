"""One proxy process for all wire tests, with a scripted VISA API; an instance of its own for each test."""

import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.client import Message, RawClient, get
from support.instance import Instance
from support.proxy import RunningProxy, running_proxy
from support.usage import Start
from support.visa_api import VisaApiServer, visa_api_thread

_numbers: Final = itertools.count(12)
_starts: Final[dict[int, Start]] = {}
"""By process id, for some modules have a proxy of their own."""


@dataclass
class Wire:
    """A user with a token, an instance that is theirs, and the proxy between them."""

    proxy: RunningProxy
    api: VisaApiServer
    instance: Instance
    number: int
    token: str

    def client(self) -> RawClient:
        """Connect to the proxy."""
        return RawClient(self.proxy.port)

    def path(self, rest: str = "/x") -> str:
        """Write a target of the Jupyter route."""
        return f"/jupyter/{self.number}{rest}"

    def get(self, rest: str = "/x", *fields: str, method: str = "GET") -> bytes:
        """Write a request of the user, with the cookie."""
        return get(self.path(rest), *fields, method=method, token=self.token)

    def ask(self, data: bytes) -> Message:
        """Send a request on a connection of its own, and take the response."""
        with self.client() as client:
            return client.ask(data)


def production(port: int) -> list[dict[str, Any]]:
    """Give the routes of production, all to one port."""
    return [
        {
            "match": r"^/jupyter/(\d+).*",
            "type": "jupyter",
            "name": "Jupyter",
            "remotePort": port,
            "ws": True,
        },
        {
            "match": r"^/visafs/(\d+).*",
            "type": "service",
            "name": "Visa Files",
            "remotePort": port,
            "ws": False,
            "pathRewrite": {r"^/visafs/\d+/": "/"},
            "setHeaders": {"x-auth-token": "{computeId}"},
        },
        {
            "match": r"^/ws/print/(\d+).*",
            "type": "service",
            "name": "Visa Printing",
            "remotePort": port,
            "ws": True,
            "pathRewrite": {r"^/ws/print/\d+/": "/socket.io/"},
        },
    ]


@pytest.fixture(scope="session")
def api() -> Iterator[VisaApiServer]:
    """Run a scripted VISA API."""
    with visa_api_thread() as server:
        yield server


@pytest.fixture(scope="session")
def instance_port() -> int:
    """Find a port that is free on every loopback address."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run the proxy with its default settings, and the routes of production on one port."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    with running_proxy(directory, api_url=api.url, routes=production(instance_port)) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def given_back(proxy: RunningProxy) -> Iterator[None]:
    """See to it that tests leave nothing behind: behind each module, the proxy is back at its very start."""
    start = _starts.get(proxy.pid)
    if start is None:
        start = _starts[proxy.pid] = Start(proxy.states)
    yield
    start.wait_until_back()


@pytest.fixture
def wire(proxy: RunningProxy, api: VisaApiServer, instance_port: int) -> Iterator[Wire]:
    """Make a fresh user and a fresh instance."""
    number = next(_numbers)
    token = f"token-of-user-{number}"
    with Instance(instance_port) as instance:
        api.user(token, f"user-{number}")
        api.instance(number, owner=f"user-{number}", ip=instance.host)
        yield Wire(proxy, api, instance, number, token)
