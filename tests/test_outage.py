"""The VISA API is down for five minutes of normal work, on a simulated clock.

Three hundred users have a notebook open: each page asks for something every eight seconds or so. What they
get, how long they wait for it, and how hard the API is asked are counted.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import pytest

from support.simulated import run
from visa_jupyter_proxy.errors import ProxyError, VisaInvalid, VisaTimeout, VisaUnreachable
from visa_jupyter_proxy.visa_api import Instance, VisaApi
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.grant import InstanceNetworks
from visa_jupyter_proxy.worker.access.questions import Questions
from visa_jupyter_proxy.worker.http.credentials import AccessToken

type Failure = Literal["refuses", "hangs", "fails"]

USERS: Final = 300
REUSE_S: Final = 60.0
STALE_S: Final = 120.0
API_TIMEOUT_S: Final = 10.0
BEGIN_S: Final = 300.0
END_S: Final = 600.0
OVER_S: Final = 900.0


class Api:
    """Answers within 20 ms, but for five minutes, when it does what `failure` says."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure
        self.calls: Counter[int] = Counter()
        """In each second."""

    async def get_instance(self, token: str, instance_id: int) -> Instance:  # noqa: ARG002 -- all are good
        """Answer as the real client would."""
        now = asyncio.get_running_loop().time()
        self.calls[int(now)] += 1
        if not BEGIN_S <= now < END_S:
            await asyncio.sleep(0.02)
        elif self._failure == "hangs":
            await asyncio.sleep(API_TIMEOUT_S)
            raise VisaTimeout("no answer in time")
        else:
            await asyncio.sleep(0.001)
            raise VisaUnreachable("refused") if self._failure == "refuses" else VisaInvalid("503")
        return Instance(id=instance_id, host="10.0.0.1", state="ACTIVE", owner=None, values={})

    def peak(self, begin: float, end: float) -> int:
        """How many calls there were in the busiest second."""
        return max(self.calls[second] for second in range(int(begin), int(end)))


@dataclass
class Account:
    """What users have got: for each request its time, its wait, and the error if there was one."""

    requests: list[tuple[float, float, str | None]] = field(default_factory=list)

    def errors(self, begin: float, end: float) -> set[str | None]:
        """Give what requests of that time have got; None is: let in."""
        return {error for at, _, error in self.requests if begin <= at < end}

    def waits(self, longer: float) -> int:
        """How many requests have waited longer than that."""
        return sum(wait > longer for _, wait, _ in self.requests)


async def _user(number: int, authorization: Authorization, chance: random.Random, account: Account) -> None:
    loop = asyncio.get_running_loop()
    token = AccessToken(f"token-{number}")
    await asyncio.sleep(chance.uniform(0, 60))
    while (began := loop.time()) < OVER_S:
        error = None
        try:
            _ = authorization.known(token, number) or await authorization.ask(
                token, number, f"10.1.0.{number}"
            )
        except ProxyError as failed:
            error = failed.error
        account.requests.append((began, loop.time() - began, error))
        await asyncio.sleep(chance.uniform(6, 10))


async def _live(api: Api) -> Account:
    loop, chance, account = asyncio.get_running_loop(), random.Random(137), Account()
    questions = Questions(cast("VisaApi", api), patience_s=API_TIMEOUT_S, now=loop.time, jitter=chance.random)
    authorization = Authorization(
        questions,
        InstanceNetworks(None),
        reuse_s=REUSE_S,
        stale_s=STALE_S,
        now=loop.time,
        jitter=chance.random,
    )
    users = [
        asyncio.create_task(_user(number, authorization, chance, account)) for number in range(1, USERS + 1)
    ]
    while loop.time() < OVER_S:
        authorization.tick(loop.time())
        await asyncio.sleep(1.0)
    await asyncio.gather(*users)
    await authorization.close()
    return account


@pytest.fixture(scope="module", params=["refuses", "hangs", "fails"])
def outage(request: pytest.FixtureRequest) -> tuple[Failure, Api, Account]:
    """Live through it once for each way to be down."""
    api = Api(request.param)
    return request.param, api, run(_live(api))


class TestOutage:
    """Five minutes without the API."""

    def test_137_everybody_works_on_for_the_configured_time(
        self, outage: tuple[Failure, Api, Account]
    ) -> None:
        """Two minutes from the end of the last grant, which is up to one request ago."""
        _, _, account = outage
        assert {None} == account.errors(0, BEGIN_S + STALE_S - 10)

    def test_137_then_they_are_told_why_not(self, outage: tuple[Failure, Api, Account]) -> None:
        """503, which says VISA cannot be reached, but for those who have asked it themselves."""
        _, _, account = outage
        errors = account.errors(BEGIN_S + REUSE_S + STALE_S + API_TIMEOUT_S, END_S)
        assert "visa_unreachable" in errors
        assert errors <= {"visa_unreachable", "visa_timeout", "visa_invalid"}
        assert None not in errors

    def test_137_all_is_well_by_itself(self, outage: tuple[Failure, Api, Account]) -> None:
        """Within the five seconds to the next probe, and that of a probe which hangs."""
        failure, _, account = outage
        assert {None} == account.errors(END_S + 6 + (API_TIMEOUT_S if failure == "hangs" else 0), OVER_S)

    def test_137_few_wait(self, outage: tuple[Failure, Api, Account]) -> None:
        """An API that hangs costs the first ones a time-out, and afterwards each probe; no other waits."""
        _, _, account = outage
        assert 0 == account.waits(2 * API_TIMEOUT_S)  # for a turn, and for an answer
        assert account.waits(1.0) < 100

    def test_137_the_api_is_not_rushed_at(self, outage: tuple[Failure, Api, Account]) -> None:
        """Hardly asked while it is down, and afterwards not much harder than ever."""
        _, api, account = outage
        usual, down = api.peak(60, BEGIN_S), api.peak(BEGIN_S + API_TIMEOUT_S + 1, END_S)
        back = api.peak(END_S, OVER_S)
        assert down <= 10
        assert usual <= 20
        assert back <= 1.5 * len(account.requests) / OVER_S
