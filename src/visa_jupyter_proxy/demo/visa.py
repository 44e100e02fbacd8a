"""A stand-in for the VISA API server: the four calls that the proxy knows, as faithful as it can tell.

It keeps everything in memory, and remembers which calls it got.
"""

import hashlib
import json
import re
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from visa_jupyter_proxy.demo.accounts import Tokens, User

LONGEST_ID: Final = 150
"""The VISA API stores no longer kernel or session id."""

CALLS_KEPT: Final = 10_000
ROWS_KEPT: Final = 10_000


def iso(seconds: float | None) -> str | None:
    """Write Unix time as the VISA API does."""
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )


@dataclass
class Instance:
    """A virtual machine. `members` are user and role; times are Unix time."""

    id: int
    name: str
    state: str
    ip_address: str | None
    members: dict[User, str]
    last_seen_at: float | None = None
    expiration_date: float | None = None
    uid: str = field(default_factory=lambda: secrets.token_hex(4))
    compute_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def owner(self) -> User:
        """The one member whose role is OWNER."""
        return next(user for user, role in self.members.items() if role == "OWNER")

    def role_of(self, user: User) -> str | None:
        """Return the role; support staff have one without being members."""
        return self.members.get(user) or ("SUPPORT" if "ADMIN" in user.roles else None)

    def as_json(self) -> dict[str, object]:
        """Return the instance as the VISA API shows it, secrets included."""
        return {
            "id": self.id,
            "uid": self.uid,
            "computeId": self.compute_id,
            "name": self.name,
            "ipAddress": self.ip_address,
            "state": self.state,
            "activeProtocols": ["JUPYTER"] if self.ip_address else [],
            "members": [
                {
                    "id": 100 * self.id + number,
                    "role": role,
                    "user": {"id": user.id, "firstName": user.given_name, "lastName": user.family_name},
                }
                for number, (user, role) in enumerate(self.members.items())
            ],
            "lastSeenAt": iso(self.last_seen_at),
            "terminationDate": None,
            "expirationDate": iso(self.expiration_date),
            "deleteRequested": False,
            "publicAccessToken": None,
        }


@dataclass(frozen=True)
class NotebookKey:
    """What makes two reports speak of the same notebook session."""

    instance_id: int
    kernel_id: str
    session_id: str


@dataclass
class NotebookRow:
    """A notebook session as recorded; `closed_by` is `close`, or `open` when a newer row retired this one."""

    key: NotebookKey
    user: User
    opened_at: float
    closed_at: float | None = None
    closed_by: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return what is worth showing."""
        return {
            "instanceId": self.key.instance_id,
            "kernelId": self.key.kernel_id,
            "sessionId": self.key.session_id,
            "user": self.user.login,
            "openedAt": iso(self.opened_at),
            "closedAt": iso(self.closed_at),
            "closedBy": self.closed_by,
        }


@dataclass(frozen=True)
class Call:
    """A call that came, and its answer. Of the token only its SHA-256 is kept."""

    at: float
    method: str
    path: str
    status: int
    token_sha256: str | None

    def as_json(self) -> dict[str, object]:
        """Return all of it."""
        return {
            "at": iso(self.at),
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "tokenSha256": self.token_sha256,
        }


class Visa:
    """Users' instances and notebook sessions, and the answers about them."""

    def __init__(
        self, tokens: Tokens, instances: Iterable[Instance], *, now: Callable[[], float] = time.time
    ) -> None:
        self.tokens = tokens
        self.instances: Mapping[int, Instance] = {instance.id: instance for instance in instances}
        self.notebooks: deque[NotebookRow] = deque(maxlen=ROWS_KEPT)
        """Oldest first."""
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        """Oldest first."""
        self._now = now

    def application(self) -> web.Application:
        """Return the calls under `/api`, ready to be served or to be mounted."""
        application = web.Application(middlewares=[self._record])
        instance = r"/{id:\d{1,18}}"
        application.router.add_get("/jupyter/instances" + instance, self._get_as_owner)
        application.router.add_get("/account/instances" + instance, self._get_as_member)
        application.router.add_post("/jupyter/instances" + instance + "/notebook/open", self._open)
        application.router.add_post("/jupyter/instances" + instance + "/notebook/close", self._close)
        return application

    def give(self, instance_id: int, user: User) -> bool:
        """Make `user` the owner; who owned it stays as a member. False when there is no such instance."""
        instance = self.instances.get(instance_id)
        if instance is None:
            return False
        instance.members[instance.owner] = "USER"
        instance.members[user] = "OWNER"
        return True

    # --- the four calls ------------------------------------------------------------------

    async def _get_as_owner(self, request: web.Request) -> web.Response:
        user = self._user(request)
        instance = self.instances.get(int(request.match_info["id"]))
        if instance is None or instance.owner != user:
            raise _not_found()
        # The side effect that counts: this call, and no other, says that the instance is in use.
        instance.last_seen_at = self._now()
        instance.expiration_date = None
        return _answer(instance.as_json())

    async def _get_as_member(self, request: web.Request) -> web.Response:
        user = self._user(request)
        instance = self.instances.get(int(request.match_info["id"]))
        role = instance and instance.role_of(user)
        if instance is None or role is None:
            raise _not_found()
        return _answer(instance.as_json() | {"membership": {"role": role}})

    async def _open(self, request: web.Request) -> web.Response:
        user = self._user(request)
        key = await _notebook_key(request)
        if key.instance_id not in self.instances:
            raise _not_found()
        if max(len(key.kernel_id), len(key.session_id)) > LONGEST_ID:
            raise _bad_request(f"kernelId and sessionId have at most {LONGEST_ID} characters")
        self._end(key, by="open")
        self.notebooks.append(NotebookRow(key, user, self._now()))
        return _answer({})

    async def _close(self, request: web.Request) -> web.Response:
        self._end(await _notebook_key(request), by="close")
        return _answer({})

    # --- what they stand on --------------------------------------------------------------

    def _user(self, request: web.Request) -> User:
        token = _bearer(request)
        user = self.tokens.verify(token) if token else None
        if user is None:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"}, text="")
        return user

    def _end(self, key: NotebookKey, *, by: str) -> None:
        for row in self.notebooks:
            if row.key == key and row.closed_at is None:
                row.closed_at, row.closed_by = self._now(), by

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            self._remember(request, refusal.status)
            raise
        self._remember(request, response.status)
        return response

    def _remember(self, request: web.Request, status: int) -> None:
        token = _bearer(request)
        digest = hashlib.sha256(token.encode()).hexdigest() if token else None
        self.calls.append(Call(self._now(), request.method, request.path, status, digest))


def _bearer(request: web.Request) -> str | None:
    found = re.fullmatch(r"Bearer +(\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
    return found[1] if found else None


async def _notebook_key(request: web.Request) -> NotebookKey:
    try:
        body = await request.json()
        kernel_id, session_id = body["kernelId"], body["sessionId"]
    except (ValueError, TypeError, KeyError):
        raise _bad_request('the body must be {"kernelId": "...", "sessionId": "..."}') from None
    return NotebookKey(int(request.match_info["id"]), str(kernel_id), str(session_id))


def _answer(data: object) -> web.Response:
    return web.json_response({"data": data})


def _bad_request(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=_errors(message), content_type="application/json")


def _not_found() -> web.HTTPNotFound:
    return web.HTTPNotFound(text=_errors(HTTPStatus.NOT_FOUND.phrase), content_type="application/json")


def _errors(message: str) -> str:
    return json.dumps({"errors": [message]})
