"""A proxy process of its own for each test, with a scripted VISA API and one instance."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from support.client import RawClient, get, upgrade
from support.instance import Instance, echo
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer, visa_api_thread
from visa_jupyter_proxy.worker.http.websocket import close_frame

NUMBER = 7
TOKEN = "token-of-anna"
KERNEL = "0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b"

SERVICE_RESTART: Final = close_frame(1012, "service restart")
"""The last word to a browser that is to come back."""

INSIDE: Final = Path(__file__).parent / "inside"
"""What tests do inside the proxy's processes: see there."""


def in_front_of_pythonpath(directory: Path) -> str:
    """Give PYTHONPATH with one more directory in front."""
    return os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))


def path(rest: str = "/x") -> str:
    """Write a target of the instance."""
    return f"/jupyter/{NUMBER}{rest}"


def request(rest: str = "/x", *fields: str, method: str = "GET") -> bytes:
    """Write a request of its owner."""
    return get(path(rest), *fields, token=TOKEN, method=method)


def channel(session: str) -> bytes:
    """Write the request for a kernel channel."""
    return upgrade(path(f"/api/kernels/{KERNEL}/channels?session_id={session}"), token=TOKEN)


def is_told_to_come_back(client: RawClient) -> bool:
    """Close as a browser does when it reads the close frame; whether that was the last word."""
    told = client.exactly(len(SERVICE_RESTART)) == SERVICE_RESTART
    client.finish()
    return told and client.closed()


@dataclass
class Place:
    """An API, an instance, and the means to start a proxy between them."""

    directory: Path
    api: VisaApiServer
    instance: Instance
    start: Callable[..., RunningProxy]
    clients: list[RawClient] = field(default_factory=list)

    def client(self, proxy: RunningProxy) -> RawClient:
        """Connect; closed at the end of the test."""
        client = RawClient(proxy.port)
        self.clients.append(client)
        return client

    def sessions(self) -> dict[str, bool]:
        """Session id -> whether VISA believes it active."""
        return {row.key[2]: row.active for row in self.api.notebooks}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Make an API with one user and one instance."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = int(sock.getsockname()[1])
    routes = [
        {"match": r"^/jupyter/(\d+).*", "type": "jupyter", "name": "Jupyter", "remotePort": port, "ws": True}
    ]
    with ExitStack() as stack:
        api = stack.enter_context(visa_api_thread())
        instance = stack.enter_context(Instance(port))
        instance.play(echo)
        api.user(TOKEN, "anna")
        api.instance(NUMBER, owner="anna", ip=instance.host)

        def start(*, under: Sequence[str] = (), node: str = ".", **settings: str) -> RunningProxy:
            directory = tmp_path / node
            directory.mkdir(exist_ok=True)
            return stack.enter_context(
                running_proxy(directory, api_url=api.url, routes=routes, under=under, **settings)
            )

        place = Place(tmp_path, api, instance, start)
        yield place
        for client in place.clients:
            client.sock.close()
