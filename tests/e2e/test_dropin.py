"""The environment and the `proxy.conf.json` of the original, unchanged, with all three services.

Contract section 1 has both; `INSTANCE_NETWORKS` alone is new, for no instance is at a loopback address.
"""

import asyncio
import http.client
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import socketio  # type: ignore[import-untyped]  # it has no annotations
from aiohttp import web
from yarl import URL

from support.running_demo import eventually
from visa_jupyter_proxy.demo.accounts import ADA, EMMY, Tokens
from visa_jupyter_proxy.demo.pages import Pages
from visa_jupyter_proxy.demo.visa import Instance, Visa

PROXY_CONF = r"""[
  {
    "match": "^/jupyter/(\\d+).*",
    "type": "jupyter",
    "name": "Jupyter",
    "remotePort": 8888,
    "ws": true
  },
  {
    "match": "^/visafs/(\\d+).*",
    "type": "service",
    "name": "Visa Files",
    "remotePort": 8090,
    "pathRewrite": {
      "^/visafs/\\d+/": "/"
    }
  },
  {
    "match": "^/ws/print/(\\d+).*",
    "type": "service",
    "name": "Visa Printing",
    "remotePort": 8091,
    "ws": true,
    "pathRewrite": {
      "^/ws/print/\\d+/": "/socket.io/"
    }
  }
]
"""

PORTS = (8888, 8090, 8091)
ID = 7
DEADLINE_S = 60.0

pytestmark = pytest.mark.timeout(180)


@dataclass
class Seen:
    """What reached a service: targets as they were sent, and header fields in lower case."""

    targets: list[str] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)

    def note(self, request: web.BaseRequest) -> None:
        """Remember a request."""
        self.targets.append(request.raw_path)
        self.fields.append({name.lower(): value for name, value in request.headers.items()})


@dataclass
class World:
    """Everything around the proxy, and the proxy's address."""

    visa: Visa
    token: str
    proxy: str
    jupyter: Seen = field(default_factory=Seen)
    files: Seen = field(default_factory=Seen)
    printing: Seen = field(default_factory=Seen)

    def cookie(self) -> dict[str, str]:
        """Return the header field of the owner's browser."""
        return {"Cookie": f"access_token={self.token}; other=1"}


def _instance_host() -> str:
    """Return a loopback address at which the three ports are free: they are part of the file."""
    for _ in range(100):
        host = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        try:
            for port in PORTS:
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((host, port))
        except OSError:
            continue
        return host
    raise AssertionError(f"ports {PORTS} are in use on every loopback address: something listens on 0.0.0.0")


def _jupyter(seen: Seen) -> web.Application:
    async def kernel(request: web.Request) -> web.WebSocketResponse:
        seen.note(request)
        channel = web.WebSocketResponse(protocols=["v1.kernel.websocket.jupyter.org"])
        await channel.prepare(request)
        async for message in channel:
            await channel.send_bytes(message.data)
        return channel

    async def other(request: web.Request) -> web.Response:
        seen.note(request)
        return web.Response(text="Jupyter", headers={"Set-Cookie": "_xsrf=2|abc; Path=/jupyter/7/"})

    application = web.Application()
    application.router.add_get("/jupyter/{id}/api/kernels/{kernel}/channels", kernel)
    application.router.add_get("/{path:.*}", other)
    return application


def _files(seen: Seen) -> web.Application:
    """Return a file service that sends back what it got."""

    async def answer(request: web.Request) -> web.Response:
        seen.note(request)
        return web.Response(body=await request.read())

    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{path:.*}", answer)
    return application


def _printing(seen: Seen) -> web.Application:
    server = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])

    async def connect(_sid: str, environ: dict[str, object]) -> None:
        request = environ["aiohttp.request"]
        assert isinstance(request, web.BaseRequest)
        seen.note(request)

    async def job(_sid: str, data: object) -> object:
        return {"printed": data}

    server.on("connect", connect)
    server.on("job", job)
    application = web.Application()
    server.attach(application, socketio_path="socket.io")
    return application


async def _listen(stack: AsyncExitStack, application: web.Application, host: str, port: int) -> int:
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port).start()
    return int(runner.addresses[0][1])


def _environment(api_port: int, port: int) -> dict[str, str]:
    settings = {
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "API_HOST": "127.0.0.1",
        "API_PORT": str(api_port),
        "CACHE_REFRESH_TIME_S": "60",
        "STORAGE_DIR": "data",
        "LOG_LEVEL": "info",
        "LOG_TIMEZONE": "Europe/Paris",
        "INSTANCE_NETWORKS": "127.0.0.0/8",
    }
    prefix = "VISA_JUPYTER_PROXY_"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    return kept | {prefix + name: value for name, value in settings.items()}


async def _proxy(stack: AsyncExitStack, folder: Path, api_port: int) -> str:
    """Start the proxy as the original was started: no argument, everything from `folder` and environment."""
    (folder / "proxy.conf.json").write_text(PROXY_CONF)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = (folder / "proxy.log").open("wb")
    stack.callback(log.close)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "visa_jupyter_proxy",
        cwd=folder,
        env=_environment(api_port, port),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.push_async_callback(_stop, process)
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as session:
        while True:
            assert process.returncode is None, (folder / "proxy.log").read_text()
            try:
                async with session.get(f"{url}/nope") as answer:
                    assert 404 == answer.status
                    return url
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        assert 0 == await asyncio.wait_for(process.wait(), DEADLINE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


@asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        host = _instance_host()
        tokens = Tokens()
        visa = Visa(tokens, [Instance(ID, "Ice", "ACTIVE", host, {ADA: "OWNER"})])
        world = World(visa, tokens.sign(ADA), "")
        pages = Pages(visa, (ADA, EMMY), "http://127.0.0.1")
        api_port = await _listen(stack, pages.application(), "127.0.0.1", 0)
        await _listen(stack, _jupyter(world.jupyter), host, 8888)
        await _listen(stack, _files(world.files), host, 8090)
        await _listen(stack, _printing(world.printing), host, 8091)
        world.proxy = await _proxy(stack, folder, api_port)
        yield world


async def _jupyter_works(world: World) -> None:
    """HTTP without a rewrite, and a kernel channel with its sub-protocol, which VISA records."""
    target = f"/jupyter/{ID}/lab?a=%2F"
    channel = f"/jupyter/{ID}/api/kernels/k-1/channels?session_id=s-1"
    async with aiohttp.ClientSession(headers=world.cookie(), cookie_jar=aiohttp.DummyCookieJar()) as session:
        async with session.get(URL(world.proxy + target, encoded=True)) as answer:
            assert (200, "Jupyter") == (answer.status, await answer.text())
            assert "_xsrf" in answer.cookies
        protocol = "v1.kernel.websocket.jupyter.org"
        async with session.ws_connect(world.proxy + channel, protocols=[protocol]) as kernel:
            assert protocol == kernel.protocol
            await kernel.send_bytes(b"x" * 100_000)
            assert b"x" * 100_000 == await kernel.receive_bytes()
    assert [target, channel] == world.jupyter.targets
    # Of the cookies, the instance sees all but the token.
    assert ["other=1"] * 2 == [fields["cookie"] for fields in world.jupyter.fields]
    rows = world.visa.notebooks
    await asyncio.to_thread(
        lambda: eventually("VISA has the session, closed", lambda: rows and rows[0].closed_at)
    )
    (row,) = rows
    assert (ADA, "k-1", "s-1", "close") == (row.user, row.key.kernel_id, row.key.session_id, row.closed_by)


async def _files_work(world: World) -> None:
    """Rewrite the prefix, once; everything else of the target, and the service's own header, stays."""
    body = json.dumps({"content": "A" * 1_400_000}).encode()

    def ask() -> tuple[int, bytes]:
        # aiohttp's client would normalise such a path.
        connection = http.client.HTTPConnection(world.proxy.removeprefix("http://"), timeout=DEADLINE_S)
        try:
            fields = world.cookie() | {"x-auth-token": "secret"}
            connection.request("PUT", f"/visafs/{ID}/api/files//x%2Fy/visafs/7/?a=1", body, fields)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    assert (200, body) == await asyncio.to_thread(ask)
    assert ["/api/files//x%2Fy/visafs/7/?a=1"] == world.files.targets
    assert "secret" == world.files.fields[0]["x-auth-token"]


async def _printing_works(world: World) -> None:
    """Connect a real Socket.IO client by WebSocket alone, send an event and get its answer."""
    async with aiohttp.ClientSession(headers=world.cookie(), cookie_jar=aiohttp.DummyCookieJar()) as session:
        client = socketio.AsyncClient(http_session=session, reconnection=False)
        url = f"{world.proxy}?token=its-own"
        await client.connect(
            url, headers=world.cookie(), transports=["websocket"], socketio_path=f"/ws/print/{ID}/"
        )
        assert {"printed": "page 1"} == await client.call("job", "page 1", timeout=60)
        await client.disconnect()
    (target,) = world.printing.targets
    assert target.startswith("/socket.io/?")
    assert {"token=its-own", "transport=websocket"} <= set(target.partition("?")[2].split("&"))


async def _others_are_refused(world: World) -> None:
    """Every service asks VISA, not only Jupyter; nothing of a refused request reaches one."""
    before = (len(world.files.targets), len(world.printing.targets), len(world.jupyter.targets))
    stranger = {"Authorization": f"Bearer {world.visa.tokens.sign(EMMY)}"}
    paths = [f"/jupyter/{ID}/lab", f"/visafs/{ID}/x", f"/ws/print/{ID}/?transport=websocket"]
    async with aiohttp.ClientSession() as session:
        for path in paths:
            for expected, fields in ((401, {}), (404, stranger)):
                async with session.get(world.proxy + path, headers=fields) as answer:
                    assert expected == answer.status
    assert before == (len(world.files.targets), len(world.printing.targets), len(world.jupyter.targets))


def test_the_original_s_files_run_unchanged(tmp_path: Path) -> None:
    """Jupyter, file service and Socket.IO work with the original's own environment and routes."""

    async def run() -> None:
        async with _world(tmp_path) as world:
            await _jupyter_works(world)
            await _files_work(world)
            await _printing_works(world)
            await _others_are_refused(world)

    asyncio.run(run())
    assert (tmp_path / "data").is_dir()
    assert "its-own" not in (tmp_path / "proxy.log").read_text()
