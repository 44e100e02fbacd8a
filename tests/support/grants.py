"""Grants of a worker, for tests: the clocks, the chance and the VISA API are the tests' own.

setting = Setting()
await setting.grant("token")         # as a request asks
setting.api.refuses = VisaUnreachable("down"); setting.now += 60
"""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Final, cast

import pytest

from support import simulated
from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.visa_api import Access, Instance, VisaApi
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.grant import Grant, InstanceNetworks
from visa_jupyter_proxy.worker.access.questions import Questions
from visa_jupyter_proxy.worker.http.credentials import AccessToken

REUSE_S: Final = 60.0
STALE_S: Final = 120.0


class ScriptedApi:
    """An API that answers what it is told, when it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.host: str | None = "10.0.0.12"
        self.state = "ACTIVE"
        self.role: str | None = "OWNER"
        self.looked: list[tuple[str, int]] = []
        self.refuses: ProxyError | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def get_instance(self, token: str, instance_id: int) -> Instance:
        """Answer when `open` is set."""
        self.asked.append((token, instance_id))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if self.refuses is not None:
            raise self.refuses
        return Instance(id=instance_id, host=self.host, state=self.state, owner="anna", values={})

    async def get_access(self, token: str, instance_id: int) -> Access:
        """Answer at once."""
        self.looked.append((token, instance_id))
        if self.refuses is not None:
            raise self.refuses
        return Access(role=self.role, host=self.host, state=self.state)


class Setting:
    """An `Authorization`, its API and its two clocks."""

    def __init__(
        self, *, patience_s: float = 20.0, reuse_s: float = REUSE_S, stale_s: float = STALE_S
    ) -> None:
        self.now = 1000.0
        self.wall_clock = 1_700_000_000.0
        self.api = ScriptedApi()
        self.questions = Questions(
            cast("VisaApi", self.api), patience_s=patience_s, now=lambda: self.now, jitter=lambda: 1.0
        )
        self.authorization = Authorization(
            self.questions,
            InstanceNetworks(None),
            reuse_s=reuse_s,
            stale_s=stale_s,
            now=lambda: self.now,
            wall_clock=lambda: self.wall_clock,
            jitter=lambda: 0.0,
            accepted=lambda token, user, instance: self.accepted.append((token.text, user, instance.id)),
        )
        self.accepted: list[tuple[str, str, int]] = []

    async def grant(self, token: str = "token", instance_id: int = 12, client: str = "a") -> Grant:
        """Ask as a request would."""
        sent = AccessToken(token)
        known = self.authorization.known(sent, instance_id)
        return known or await self.authorization.ask(sent, instance_id, client)

    def ask(self, token: str = "token", instance_id: int = 12, client: str = "a") -> asyncio.Task[Grant]:
        """Ask in a task of its own."""
        return asyncio.create_task(self.grant(token, instance_id, client))

    async def refused(self, error: type[ProxyError], token: str = "token") -> None:
        """Ask, and be refused for this reason."""
        with pytest.raises(error):
            await self.grant(token)

    def jwt(self, **claims: object) -> str:
        """Return a token with these claims; `exp` counts from now."""
        if isinstance(exp := claims.get("exp"), int | float):
            claims["exp"] = self.wall_clock + exp
        return jwt(json.dumps(claims).encode())


def jwt(payload: bytes) -> str:
    """Return a token with this payload, which nobody has signed."""
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


def run(
    test: Callable[[Setting], Coroutine[None, None, None]],
    *,
    patience_s: float = 20.0,
    reuse_s: float = REUSE_S,
    stale_s: float = STALE_S,
) -> None:
    """Run a test with a setting of its own, which it leaves with nothing under way."""

    async def alone() -> None:
        setting = Setting(patience_s=patience_s, reuse_s=reuse_s, stale_s=stale_s)
        await test(setting)
        await setting.authorization.close()

    simulated.run(alone())


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds; nothing here waits for time."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def turns() -> None:
    """Let everything happen that can happen without an answer."""
    for _ in range(50):
        await asyncio.sleep(0)
