"""A VISA API for tests: a real server on 127.0.0.1 that keeps the contract and can be told to misbehave.

    async with VisaApiServer() as api:            # in the running loop
    with visa_api_thread() as api:                # for synchronous tests: in a thread of its own

    api.user("token-a", "anna")                   # a token that the API accepts
    api.instance(7, owner="anna", ip="127.0.0.1") # an instance and its owner
    api.url                                       # base URL, `http://127.0.0.1:PORT/api`

    api.script("open", Answer(503), Answer())     # the next two `open` requests: 503, then as usual
    api.always("close", Answer(raw=b"garbage"))   # every `close` from now on; `None` ends it
    hold = Hold(); api.script("close", Answer(hold=hold)); ...; hold.release()
    api.always("close", Answer(hold=Hold()))      # a server that hangs
    api.down(); api.up()                          # connections are refused, on the same port

    api.requests                                  # every request, in the order in which it arrived
    api.notebooks                                 # every row that `open` has inserted, in order
    api.active()                                  # the keys of the rows that are active now
    await api.until(lambda: ...); api.wait(lambda: ...)   # for a condition, 20 s at most

Endpoints are `instance` (GET jupyter/instances/N), `account` (GET account/instances/N), `open`, `close`.
All of it may be used from any thread.
"""

import asyncio
import json
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiohttp import web

type Endpoint = Literal["instance", "account", "open", "close"]
type Key = tuple[int, str, str]
"""Instance id, kernel id, session id."""

_PATIENCE_S: Final = 20.0
_LONGEST_ID: Final = 150


class Hold:
    """Holds requests back until `release`; from any thread."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def release(self) -> None:
        """Let all that waits, and all that comes, pass."""
        self._released.set()

    def wait(self) -> bool:
        """Wait until requests pass; False when that takes too long."""
        return self._released.wait(_PATIENCE_S)

    @property
    def released(self) -> bool:
        """Whether requests pass."""
        return self._released.is_set()


@dataclass(frozen=True)
class Answer:
    """What to do with one request; without arguments, what the contract says."""

    status: int | None = None
    """Answer with this status instead of the contract's."""
    body: bytes = b"{}"
    """The body that goes with `status`."""
    raw: bytes | None = None
    """Write these bytes instead of an HTTP response, and close."""
    reset: bool = False
    """Reset the connection instead of answering."""
    hold: Hold | None = None
    """Wait for this first."""
    obey: bool = False
    """Do what was asked before the odd answer: the request arrived, the answer is lost."""


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    endpoint: Endpoint | None
    method: str
    path: str
    """The request target, query included."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        """The Bearer token, if it carries one."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    @property
    def key(self) -> Key:
        """The notebook session that an open or a close is about."""
        ids = json.loads(self.body)
        return int(self.path.split("/")[4]), ids["kernelId"], ids["sessionId"]


@dataclass
class Notebook:
    """A row of the API's notebook sessions."""

    key: Key
    user: str
    active: bool = True


@dataclass
class _Instance:
    owner: str
    fields: dict[str, Any] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    seen: int = 0


class VisaApiServer:
    """See the module's docstring; `async with` starts and stops it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.notebooks: list[Notebook] = []
        self.users: dict[str, str] = {}
        """Token -> user id; take one out to have it refused with 401."""
        self.instances: dict[int, _Instance] = {}
        self._scripts: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {}
        # Bound for as long as this lives, never listening: keeps the port ours while the API is down.
        self._reserved = _bound(0)
        self._held = 0
        self._over = False
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"

    # --- what exists ----------------------------------------------------------------------

    def user(self, token: str, user: str) -> None:
        """Accept `token` as one of `user`."""
        self.users[token] = user

    def instance(
        self, number: int, *, owner: str, ip: str | None = "127.0.0.1", state: str = "ACTIVE", **fields: Any
    ) -> None:
        """Add or replace an instance; `fields` are further fields of its JSON, or replace them."""
        shown = {
            "id": number,
            "uid": f"uid-{number}",
            "computeId": f"compute-secret-{number}",
            "name": f"instance {number}",
            "ipAddress": ip,
            "state": state,
            "activeProtocols": ["JUPYTER"],
        }
        self.instances[number] = _Instance(owner, shown | fields, {owner: "OWNER"})

    def member(self, number: int, user: str, role: str) -> None:
        """Make `user` a member of an instance (`USER`, `GUEST`, `SUPPORT`)."""
        self.instances[number].members[user] = role

    def seen(self, number: int) -> int:
        """How often `lastSeenAt` of the instance has moved."""
        return self.instances[number].seen

    # --- what happened --------------------------------------------------------------------

    def active(self) -> list[Key]:
        """Give the keys of all active notebook sessions, sorted; a key that is there twice is a fault."""
        return sorted(row.key for row in list(self.notebooks) if row.active)

    def asked(self, endpoint: Endpoint) -> list[Request]:
        """Give all requests of one endpoint, in order."""
        return [request for request in list(self.requests) if request.endpoint == endpoint]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; fails after 20 s."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not seen in time; last requests: {self.requests[-5:]}"
            await asyncio.sleep(0.005)

    def wait(self, condition: Callable[[], object]) -> None:
        """Do the same from synchronous code."""
        asyncio.run(self.until(condition))

    # --- how to misbehave -----------------------------------------------------------------

    def script(self, endpoint: Endpoint, *answers: Answer) -> None:
        """Answer the next requests of `endpoint` so, one each."""
        self._scripts[endpoint].extend(answers)

    def unscript(self) -> None:
        """Forget what is scripted and not answered yet."""
        self._scripts.clear()

    def always(self, endpoint: Endpoint, answer: Answer | None) -> None:
        """Answer every request of `endpoint` so, after what is scripted; None: as the contract says."""
        if answer is None:
            self._always.pop(endpoint, None)
        else:
            self._always[endpoint] = answer

    def down(self) -> None:
        """Refuse connections and cut those that stand, until `up`; returns when it is so."""
        self._in_loop(self._close)

    def up(self) -> None:
        """Accept connections again, on the same port; returns when it is so."""
        self._in_loop(self._listen)

    # --- the server -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._web = web.Server(self._serve)
        self._socket: socket.socket | None = None
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._close()
        while self._held:  # noqa: ASYNC110 -- they look for `_over` themselves
            await asyncio.sleep(0.001)
        await self._web.shutdown(0)
        self._reserved.close()

    def _in_loop(self, action: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            action()
            return
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(_PATIENCE_S)

    def _listen(self) -> None:
        """Accept by hand: listening and ceasing to listen happen here and now, without a turn of the loop."""
        if self._socket is None:
            self._socket = _bound(self.port)
            self._socket.listen(1024)
            self._loop.add_reader(self._socket.fileno(), self._accept, self._socket)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError:  # the client has gone already
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._connect(sock))
        task.add_done_callback(lambda t: t.exception() if not t.cancelled() else None)

    async def _connect(self, sock: socket.socket) -> None:
        transport, _ = await self._loop.connect_accepted_socket(self._web, sock)
        if self._socket is None:
            transport.abort()

    def _close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for connection in list(self._web.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        endpoint, number = _endpoint(request.method, request.path)
        seen = Request(endpoint, request.method, request.raw_path, request.headers.copy(), body)
        self.requests.append(seen)
        if endpoint is None:
            return web.json_response({"errors": ["no such thing"]}, status=404)
        script = self._scripts[endpoint]
        answer = script.popleft() if script else self._always.get(endpoint, Answer())
        if answer.hold is not None and not await self._passed(answer.hold):
            return web.Response()  # to nobody: the test is over
        odd = answer.status is not None or answer.raw is not None or answer.reset
        usual = self._obey(endpoint, number, seen) if not odd or answer.obey else None
        return await _odd(request, answer) if odd or usual is None else usual

    async def _passed(self, hold: Hold) -> bool:
        """Wait until released by any thread; False when the server is stopped before."""
        self._held += 1
        try:
            while not hold.released and not self._over:  # noqa: ASYNC110 -- released by any thread
                await asyncio.sleep(0.005)
        finally:
            self._held -= 1
        return not self._over

    def _obey(self, endpoint: Endpoint, number: int, request: Request) -> web.Response:
        if endpoint == "close":
            self._retire(_key(number, request))
            return _ok(None)
        user = self.users.get(request.token or "")
        if user is None:
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        instance = self.instances.get(number)
        role = None if instance is None else instance.members.get(user)
        if instance is None or role is None or (endpoint != "account" and role != "OWNER"):
            return web.json_response({"errors": ["Instance not found"]}, status=404)
        match endpoint:
            case "open":
                return self._open(_key(number, request), user)
            case "account":
                return _ok(_shown(instance) | {"membership": {"role": role}})
            case "instance":
                instance.seen += 1
                return _ok(_shown(instance))

    def _open(self, key: Key, user: str) -> web.Response:
        if any(len(name) > _LONGEST_ID for name in key[1:]):
            return web.json_response({"errors": ["too long"]}, status=400)
        self._retire(key)
        self.notebooks.append(Notebook(key, user))
        return _ok(None)

    def _retire(self, key: Key) -> None:
        for row in self.notebooks:
            if row.key == key:
                row.active = False


@contextmanager
def visa_api_thread() -> Iterator[VisaApiServer]:
    """Run the server in a thread of its own, for synchronous tests."""
    started, over = threading.Event(), threading.Event()
    api = VisaApiServer()

    async def serve() -> None:
        async with api:
            started.set()
            while not over.is_set():  # noqa: ASYNC110 -- set by another thread
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="visa-api")
    thread.start()
    try:
        assert started.wait(_PATIENCE_S)
        yield api
    finally:
        over.set()
        thread.join(_PATIENCE_S)


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Several sockets may be bound to the port; only one that listens is given connections.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", port))
    return sock


def _endpoint(method: str, path: str) -> tuple[Endpoint | None, int]:
    match method, path.split("/")[1:]:
        case "GET", ["api", "jupyter", "instances", number] if number.isdecimal():
            return "instance", int(number)
        case "GET", ["api", "account", "instances", number] if number.isdecimal():
            return "account", int(number)
        case "POST", ["api", "jupyter", "instances", number, "notebook", "open"] if number.isdecimal():
            return "open", int(number)
        case "POST", ["api", "jupyter", "instances", number, "notebook", "close"] if number.isdecimal():
            return "close", int(number)
    return None, 0


def _key(number: int, request: Request) -> Key:
    ids = json.loads(request.body)
    return number, str(ids["kernelId"]), str(ids["sessionId"])


def _shown(instance: _Instance) -> dict[str, Any]:
    members = [{"role": role, "user": {"id": user}} for user, role in instance.members.items()]
    return {"members": members} | instance.fields


def _ok(data: object) -> web.Response:
    return web.json_response({"data": data, "_metadata": {}})


async def _odd(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    transport = request.transport
    if answer.raw is None and not answer.reset:
        return web.Response(status=answer.status or 200, body=answer.body, content_type="application/json")
    if transport is not None and answer.raw is not None:
        transport.write(answer.raw)
        transport.close()
    elif transport is not None:
        sock = transport.get_extra_info("socket")
        # RST instead of FIN, so that the client sees a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
