"""The client of the VISA API server: the only file that speaks to it (contract section 2).

Answers are distrusted like everything else from outside: bounded in size and time, redirects are not
followed, and only the few fields that are named here leave this file.
"""

import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Final, override
from weakref import WeakSet

import aiohttp
import msgspec

from visa_jupyter_proxy import failures
from visa_jupyter_proxy.errors import (
    InstanceNotFound,
    ProxyError,
    TokenRejected,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)

_LARGEST_ANSWER: Final = 2**20
"""An instance with all its members is a few KiB; a body beyond 1 MiB is no answer."""

_UP: Final = frozenset({"ACTIVE", "PARTIALLY_ACTIVE", "ACTIVE_MIGRATING"})


_NO_TOKEN: Final = "visa-jupyter-proxy-check"  # noqa: S105 -- which is the point: it is none


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the API's answer about an instance."""

    id: int
    host: str | None
    """The address as the API gave it, unchecked; None while it has none."""
    state: str
    owner: str | None
    """User id of the member whose role is OWNER."""
    jupyter_answers: bool = False
    """Whether Jupyter's port has answered VISA itself (`activeProtocols`). A hint, no more."""
    values: Mapping[str, str]
    """What `setHeaders` of some route names: `computeId`, `id`, `uid`, `owner`. Secret: never shown."""

    @property
    def is_up(self) -> bool:
        """Whether the state is one in which services are expected to answer. A hint, no more."""
        return self.state in _UP

    @override
    def __repr__(self) -> str:
        return f"Instance(id={self.id}, state={self.state!r})"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the API's answer to a question that has no side effect."""

    role: str | None
    """`OWNER`, `USER`, `GUEST`, `SUPPORT`: what the owner of the token is to this instance."""
    host: str | None
    """As in `Instance`."""
    state: str
    jupyter_answers: bool = False
    """As in `Instance`."""

    @property
    def is_up(self) -> bool:
        """As in `Instance`."""
        return self.state in _UP

    @override
    def __repr__(self) -> str:
        return f"Access(role={self.role!r}, state={self.state!r})"


class _User(msgspec.Struct):
    id: str | int | None = None


class _Member(msgspec.Struct):
    role: str | None = None
    user: _User | None = None


class _Data(msgspec.Struct):
    id: int
    state: str | None = None
    ipAddress: str | None = None  # noqa: N815 -- the API's own names
    computeId: str | None = None  # noqa: N815 -- likewise
    uid: str | None = None
    members: list[_Member] | None = None
    activeProtocols: list[str] | None = None  # noqa: N815 -- likewise
    membership: _Member | None = None


class _Answer(msgspec.Struct):
    data: _Data


_answer = msgspec.json.Decoder(_Answer)


class VisaApi:
    """The calls that this proxy makes. Needs a running loop; close it with `close`.

    Every call raises `VisaUnreachable`, `VisaTimeout` (after `timeout_s` in all) or `VisaInvalid`,
    and what its own docstring says. A cancelled call leaves nothing behind.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | None,
        timeout_s: float,
        placeholders: Iterable[str] = (),
        called: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        """`placeholders`: the names of `Instance.values` to keep; the rest of the answer is dropped.

        `called` is told of each call that has ended: `instance`, `account`, `open` or `close`; `ok`, the name
        of an error, or `cancelled`; and how many seconds it took.
        """
        self._called = called
        context = ssl.create_default_context(cafile=ca_file) if base_url.startswith("https:") else True
        self._base_url = base_url
        self.placeholders = frozenset(placeholders)
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._session = aiohttp.ClientSession(
            # One connection for each question that may be under way; callers bound those.
            connector=aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=self._socket),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Neither HTTP_PROXY nor .netrc may divert a token (case 140).
            trust_env=False,
        )

    @property
    def connections(self) -> int:
        """How many connections to the API are open: in use, or kept by aiohttp for the next call."""
        return sum(sock.fileno() >= 0 for sock in self._sockets)

    async def close(self) -> None:
        """Close the connections to the API."""
        await self._session.close()

    async def get_instance(self, token: str, instance_id: int) -> Instance:
        """Ask whether the owner of `token` owns the instance; moves its inactivity clock.

        Raises `TokenRejected` (401) and `InstanceNotFound` (403, 404).
        """
        return self._instance(await self._about("jupyter", token, instance_id))

    async def get_access(self, token: str, instance_id: int) -> Access:
        """Ask what the owner of `token` may do with the instance; nothing changes by it.

        Any member gets an answer. Raises `TokenRejected` (401) and `InstanceNotFound` (403, 404).
        """
        data = await self._about("account", token, instance_id)
        return Access(
            role=data.membership.role if data.membership is not None else None,
            host=data.ipAddress or None,
            state=data.state or "UNKNOWN",
            jupyter_answers=_jupyter_answers(data),
        )

    async def greet(self) -> float | None:
        """See that the API answers, with a token that is none: 401, and nothing happens there.

        Returns the time by its clock (`Date`, whole seconds), None when it does not say.
        """
        async with self._answered("GET", "/account/instances/0", token=_NO_TOKEN) as response:
            if response.status != 401:
                raise VisaInvalid(f"answered {response.status} to a token that is none, and not 401")
            return _time(response.headers.get("Date"))

    async def open_notebook(self, token: str, instance_id: int, kernel_id: str, session_id: str) -> None:
        """Report that a notebook session is open. Raises `TokenRejected` and `InstanceNotFound`."""
        await self._report("open", instance_id, kernel_id, session_id, token=token)

    async def close_notebook(self, instance_id: int, kernel_id: str, session_id: str) -> None:
        """Report that a notebook session is closed: idempotent, and needs no token."""
        await self._report("close", instance_id, kernel_id, session_id, token=None)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        sock = socket.socket(*address[:3])
        self._sockets.add(sock)
        return sock

    async def _about(self, whose: str, token: str, instance_id: int) -> _Data:
        name = "instance" if whose == "jupyter" else "account"
        body = await self._call(name, "GET", f"/{whose}/instances/{instance_id}", token=token)
        try:
            data = _answer.decode(body).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Neither text nor position of the decoder: it may quote the answer.
            raise VisaInvalid("the answer about an instance is not what the contract says") from None
        if data.id != instance_id:
            raise VisaInvalid("the answer is about another instance than asked")
        return data

    async def _report(
        self, what: str, instance_id: int, kernel_id: str, session_id: str, *, token: str | None
    ) -> None:
        body = msgspec.json.encode({"kernelId": kernel_id, "sessionId": session_id})
        path = f"/jupyter/instances/{instance_id}/notebook/{what}"
        await self._call(what, "POST", path, token=token, body=body)

    async def _call(
        self, name: str, method: str, path: str, *, token: str | None, body: bytes | None = None
    ) -> bytes:
        began, outcome = time.monotonic(), "cancelled"
        try:
            async with self._answered(method, path, token=token, body=body) as response:
                if response.status != 200:
                    raise _refusal(response.status)
                answer = await _bounded(response)
                outcome = "ok"
                return answer
        except ProxyError as error:
            outcome = error.error
            raise
        finally:
            self._called(name, outcome, time.monotonic() - began)

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, *, token: str | None, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; what goes wrong, also with the answer's body, is translated."""
        fields = {"Accept": "application/json"}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if body is not None:
            fields["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method, self._base_url + path, headers=fields, data=body, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError:
            raise VisaTimeout("no answer in time") from None
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,
        ) as error:
            raise VisaUnreachable(failures.of_http(error)) from None
        except aiohttp.ClientError as error:
            raise VisaInvalid(failures.of_http(error)) from None

    def _instance(self, data: _Data) -> Instance:
        owner = next((m.user.id for m in data.members or () if m.role == "OWNER" and m.user), None)
        owner = None if owner is None else str(owner)
        known = {"computeId": data.computeId, "id": str(data.id), "uid": data.uid, "owner": owner}
        values = {name: value for name, value in known.items() if name in self.placeholders and value}
        return Instance(
            id=data.id,
            host=data.ipAddress or None,
            state=data.state or "UNKNOWN",
            owner=owner,
            jupyter_answers=_jupyter_answers(data),
            values=values,
        )


def _time(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _jupyter_answers(data: _Data) -> bool:
    return "JUPYTER" in (data.activeProtocols or ())


def _refusal(status: int) -> ProxyError:
    match status:
        case 401:
            return TokenRejected("the API answered 401")
        case 403 | 404:
            return InstanceNotFound(f"the API answered {status}")
        case _:
            return VisaInvalid(f"the API answered {status}")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            raise VisaInvalid("the answer is larger than any answer")
    return bytes(body)
