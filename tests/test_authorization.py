"""Who is asked, how often, and how long an answer counts; the clock and the API are the tests' own."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import cast

import pytest

from visa_jupyter_proxy.errors import (
    InstanceAddressRefused,
    InstanceNotFound,
    InstanceNotReady,
    ProxyError,
    TokenRejected,
    VisaBusy,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)
from visa_jupyter_proxy.visa_api import Instance, VisaApi
from visa_jupyter_proxy.worker import authorization as module
from visa_jupyter_proxy.worker.authorization import (
    MOST_QUESTIONS,
    MOST_WAITING,
    MOST_WAITING_OF_A_CLIENT,
    Authorization,
)
from visa_jupyter_proxy.worker.credentials import AccessToken
from visa_jupyter_proxy.worker.grant import Grant, InstanceNetworks

_REUSE_S = 60.0


class ScriptedApi:
    """An API that answers what it is told, when it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.host: str | None = "10.0.0.12"
        self.state = "ACTIVE"
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


class Setting:
    """An `Authorization`, its API and its two clocks."""

    def __init__(self, *, patience_s: float = 20.0, reuse_s: float = _REUSE_S) -> None:
        self.now = 1000.0
        self.wall_clock = 1_700_000_000.0
        self.api = ScriptedApi()
        self.authorization = Authorization(
            cast("VisaApi", self.api),
            InstanceNetworks(None),
            reuse_s=reuse_s,
            patience_s=patience_s,
            now=lambda: self.now,
            wall_clock=lambda: self.wall_clock,
            accepted=lambda token, user: self.accepted.append((token.text, user)),
        )
        self.accepted: list[tuple[str, str]] = []

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
        return _jwt(json.dumps(claims).encode())


def _jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


def _run(test: Callable[[Setting], Coroutine[None, None, None]], setting: Setting | None = None) -> None:
    async def run() -> None:
        made = setting or Setting()
        await test(made)
        await made.authorization.close()

    asyncio.run(run())


async def _settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds; nothing here waits for time."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def _turns() -> None:
    """Let everything happen that can happen without an answer."""
    for _ in range(50):
        await asyncio.sleep(0)


async def _ends(task: Awaitable[Grant]) -> ProxyError | Grant:
    try:
        return await task
    except ProxyError as error:
        return error


class TestOneQuestion:
    """One question for each token and instance at a time."""

    def test_131_a_hundred_requests_ask_once(self) -> None:
        """And all get the one answer; later ones get it without asking."""

        async def test(setting: Setting) -> None:
            grants = await asyncio.gather(*(setting.grant() for _ in range(100)))
            assert {id(await setting.grant())} == {id(grant) for grant in grants}
            assert [("token", 12)] == setting.api.asked

        _run(test)

    def test_132_the_first_asker_may_leave(self) -> None:
        """The question goes on for the others."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            first = setting.ask()
            await _settled(lambda: bool(setting.api.asked))
            others = [setting.ask() for _ in range(99)]
            await _turns()
            first.cancel()
            await _settled(first.done)
            setting.api.open.set()
            grants = await asyncio.gather(*others)
            assert (1, 1, True) == (len(set(map(id, grants))), len(setting.api.asked), first.cancelled())

        _run(test)

    def test_all_askers_may_leave(self) -> None:
        """The answer still fills the cache: the next attempt finds it (contract section 4)."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            asker = setting.ask()
            await _settled(lambda: bool(setting.api.asked))
            asker.cancel()
            await _settled(asker.done)
            setting.api.open.set()
            await _settled(lambda: setting.api.under_way == 0)
            await setting.grant()
            assert 1 == len(setting.api.asked)

        _run(test)

    def test_a_refusal_that_nobody_waits_for_is_no_noise(self) -> None:
        """No task is left with an exception that nobody has seen: asyncio would say so (an error here)."""
        complaints: list[object] = []

        async def test(setting: Setting) -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            setting.api.open.clear()
            setting.api.refuses = VisaUnreachable("down")
            asker = setting.ask()
            await _settled(lambda: bool(setting.api.asked))
            asker.cancel()
            await _settled(asker.done)
            setting.api.open.set()
            await _settled(lambda: setting.api.under_way == 0)

        _run(test)
        assert [] == complaints

    def test_134_tokens_and_instances_are_asked_for_apart(self) -> None:
        """Each whole token for itself, however alike they are (114, 119)."""

        async def test(setting: Setting) -> None:
            one, other = setting.jwt(sub="anna"), setting.jwt(sub="anna") + "="
            await asyncio.gather(setting.grant(one), setting.grant(other), setting.grant(one, 13))
            assert sorted([(one, 12), (other, 12), (one, 13)]) == sorted(setting.api.asked)

        _run(test)

    def test_114_claims_never_grant(self) -> None:
        """A forged token with the claims of one that is cached is asked about, and refused."""

        async def test(setting: Setting) -> None:
            good = setting.jwt(sub="anna", employeeNumber="1")
            await setting.grant(good)
            setting.api.refuses = TokenRejected("401")
            await setting.refused(TokenRejected, good[:-1] + "x")
            assert (good, good[:-1] + "x") == tuple(token for token, _ in setting.api.asked)
            await setting.grant(good)

        _run(test)


class TestLifetimes:
    """How long an answer counts."""

    def test_133_a_grant_lives_so_long(self) -> None:
        """Then the API is asked again, and its answer counts."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = InstanceNotFound("404")
            setting.now += _REUSE_S - 0.001
            await setting.grant()
            setting.now += 0.001
            await setting.refused(InstanceNotFound)
            assert 2 == len(setting.api.asked)

        _run(test)

    @pytest.mark.parametrize("refusal", [TokenRejected, InstanceNotFound])
    def test_134_a_refusal_is_remembered_for_two_seconds(self, refusal: type[ProxyError]) -> None:
        """So that a page's burst of requests is one question, and nobody waits long for a new right."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = refusal("no")
            await setting.refused(refusal)
            setting.api.refuses = None
            setting.now += 1.999
            await setting.refused(refusal)
            setting.now += 0.001
            await setting.grant()
            assert 2 == len(setting.api.asked)

        _run(test)

    @pytest.mark.parametrize("failure", [VisaUnreachable, VisaTimeout, VisaInvalid])
    def test_a_failure_is_not_remembered(self, failure: type[ProxyError]) -> None:
        """It says nothing of the token."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = failure("no")
            await setting.refused(failure)
            setting.api.refuses = None
            await setting.grant()

        _run(test)

    def test_198_an_instance_without_an_address_is_not_remembered(self) -> None:
        """It may have one the next moment."""

        async def test(setting: Setting) -> None:
            setting.api.host = None
            await setting.refused(InstanceNotReady)
            setting.api.host = "127.0.0.1"
            await setting.refused(InstanceAddressRefused)
            setting.api.host = "10.0.0.13"
            assert "10.0.0.13" == (await setting.grant()).host

        _run(test)

    def test_a_grant_of_an_instance_that_is_not_up_is_brief(self) -> None:
        """Its address is about to change."""

        async def test(setting: Setting) -> None:
            setting.api.state = "BUILDING"
            assert not (await setting.grant()).is_up
            setting.api.state = "ACTIVE"
            setting.now += 1.999
            assert not (await setting.grant()).is_up
            setting.now += 0.001
            assert (await setting.grant()).is_up

        _run(test)

    def test_exp_shortens(self) -> None:
        """A grant never outlives its token."""

        async def test(setting: Setting) -> None:
            token = setting.jwt(exp=10)
            await setting.grant(token)
            setting.now += 9.9
            await setting.grant(token)
            setting.now += 0.2
            await setting.grant(token)
            assert 2 == len(setting.api.asked)

        _run(test)

    def test_exp_shortens_the_brief_ones_too(self) -> None:
        """Whatever the state of the instance."""

        async def test(setting: Setting) -> None:
            setting.api.state = "BUILDING"
            assert setting.now + 1 == (await setting.grant(setting.jwt(exp=1))).expires

        _run(test)

    def test_exp_never_lengthens(self) -> None:
        """It is a claim of the token."""

        async def test(setting: Setting) -> None:
            assert setting.now + _REUSE_S == (await setting.grant(setting.jwt(exp=1e9))).expires

        _run(test)

    @pytest.mark.parametrize("jump", [3600.0, -3600.0])
    def test_234_the_wall_clock_may_jump(self, jump: float) -> None:
        """`exp` became a deadline of the monotonic clock when the grant was made."""

        async def test(setting: Setting) -> None:
            token = setting.jwt(exp=30)
            await setting.grant(token)
            setting.wall_clock += jump
            setting.now += 29.9
            await setting.grant(token)
            assert 1 == len(setting.api.asked)
            setting.now += 0.2
            await setting.grant(token)
            assert 2 == len(setting.api.asked)

        _run(test)

    def test_234_a_token_that_is_past_exp_by_our_clock_counts_for_ten_seconds(self) -> None:
        """The API has accepted it: then our clock is wrong."""

        async def test(setting: Setting) -> None:
            assert setting.now + 10 == (await setting.grant(setting.jwt(exp=-5))).expires
            assert setting.now + 10 == (await setting.grant(setting.jwt(exp=0))).expires

        _run(test)

    def test_no_lifetime_is_no_cache(self) -> None:
        """`CACHE_REFRESH_TIME_S=0`: every request is asked about, those at the same time together."""

        async def test(setting: Setting) -> None:
            for _ in range(2):
                await asyncio.gather(setting.grant(), setting.grant())
            setting.api.state = "BUILDING"
            for _ in range(2):
                await setting.grant()
            assert 4 == len(setting.api.asked)

        async def run() -> None:
            await test(Setting(reuse_s=0))

        asyncio.run(run())

    def test_135_what_is_forgotten_is_asked_again(self) -> None:
        """But only that very grant: a newer one stays."""

        async def test(setting: Setting) -> None:
            old = await setting.grant()
            setting.api.host = "10.0.0.13"
            setting.authorization.forget(old)
            new = await setting.grant()
            setting.authorization.forget(old)
            assert ("10.0.0.13", True) == (new.host, await setting.grant() is new)
            assert 2 == len(setting.api.asked)

        _run(test)


class TestUsers:
    """Whom a grant belongs to, for logs and records alone."""

    def test_the_subject_names_the_user(self) -> None:
        """As the accepted token states it."""

        async def test(setting: Setting) -> None:
            assert "anna" == (await setting.grant(setting.jwt(sub="anna"))).user

        _run(test)

    @pytest.mark.parametrize(
        "token",
        [
            "abc123",
            "a.b",
            "a.b.c.d",
            "..",
            "a.!.c",
            _jwt(b"[]"),
            _jwt(b"null"),
            _jwt(b'{"sub": ""}'),
            _jwt(b'{"sub": null}'),
            _jwt(b'{"sub": 7}'),
            _jwt(b'{"sub": "x", "exp": NaN}'),
            _jwt(b'{"sub": "x", "exp": "soon"}'),
            _jwt(b'{"sub": "x", "exp": 1e999}'),
            _jwt(b'{"sub": "\xff"}'),
            _jwt(b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        ],
        ids=lambda token: token[:20],
    )
    def test_117_129_any_token_that_the_api_accepts_will_do(self, token: str) -> None:
        """Without readable claims it is its own user; nothing of it is shown."""

        async def test(setting: Setting) -> None:
            grant = await setting.grant(token)
            assert (setting.now + _REUSE_S, True) == (grant.expires, grant.user.startswith("token:"))
            assert token not in grant.user
            assert grant.user != (await setting.grant("another")).user

        _run(test)

    def test_what_the_api_accepts_is_told(self) -> None:
        """With its user, also when the instance has no address yet; what it refuses is not."""

        async def test(setting: Setting) -> None:
            token = setting.jwt(sub="anna")
            setting.api.refuses = InstanceNotFound("404")
            await setting.refused(InstanceNotFound, "not the owner")
            setting.api.refuses, setting.api.host = None, None
            await setting.refused(InstanceNotReady, token)
            assert [(token, "anna")] == setting.accepted

        _run(test)

    def test_129_the_last_of_two_equal_claims_counts(self) -> None:
        """As usual in JSON; neither grants anything."""

        async def test(setting: Setting) -> None:
            assert "b" == (await setting.grant(_jwt(b'{"sub": "a", "sub": "b"}'))).user

        _run(test)


class TestBounds:
    """What is remembered, and what waits, is bounded."""

    def test_a_tick_forgets_what_is_over(self) -> None:
        """And nothing else."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = InstanceNotFound("404")
            await setting.refused(InstanceNotFound, "other")
            sizes = []
            for passed in (0.0, 2.0, _REUSE_S):
                setting.authorization.tick(setting.now + passed)
                sizes.append((len(setting.authorization._grants), len(setting.authorization._refusals)))
            assert [(1, 1), (1, 0), (0, 0)] == sizes

        _run(test)

    def test_the_oldest_makes_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For grants and refusals each."""
        monkeypatch.setattr(module, "MOST_REMEMBERED", 3)

        async def test(setting: Setting) -> None:
            for number in range(5):
                await setting.grant(f"t{number}")
            assert 3 == len(setting.authorization._grants)
            await setting.grant("t4")
            assert 5 == len(setting.api.asked)
            await setting.grant("t0")
            assert 6 == len(setting.api.asked)
            setting.api.refuses = TokenRejected("401")
            for number in range(5):
                await setting.refused(TokenRejected, f"x{number}")
            assert (3, 3) == (len(setting.authorization._grants), len(setting.authorization._refusals))

        _run(test)

    def test_246_four_questions_for_each_client_and_twenty_in_all(self) -> None:
        """The others wait for their turn, and all get one."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [
                setting.ask(f"{client}{number}", client=client)
                for client in "abcdefgh"
                for number in range(9)
            ]
            await _turns()
            asked = [token[0] for token, _ in setting.api.asked]
            assert 20 == setting.api.under_way
            assert {4} == {asked.count(client) for client in set(asked)}
            setting.api.open.set()
            await asyncio.gather(*tasks)
            assert (72, 20) == (len(setting.api.asked), setting.api.most_under_way)
            assert {} == setting.authorization._turns._clients

        _run(test)

    def test_246_one_client_does_not_stand_in_the_way_of_another(self) -> None:
        """Nor of those who are known already (138)."""

        async def test(setting: Setting) -> None:
            await setting.grant("known")
            setting.api.open.clear()
            forged = [setting.ask(f"forged{number}", client="evil") for number in range(200)]
            await _turns()
            other = setting.ask("other", client="good")
            await _turns()
            await setting.grant("known")
            assert ("other", 12) in setting.api.asked
            assert 5 == setting.api.under_way
            setting.api.open.set()
            await asyncio.gather(other, *forged)

        _run(test)

    def test_246_who_waits_too_long_is_told_so(self) -> None:
        """503; what is under way goes on, and the places are all there again afterwards."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [setting.ask(f"t{number}") for number in range(9)]
            ended = [asyncio.create_task(_ends(task)) for task in tasks]
            # With no patience at all, whoever has to wait is refused.
            await _settled(lambda: sum(task.done() for task in ended) == 5)
            setting.api.open.set()
            results = await asyncio.gather(*ended)
            assert 5 == sum(isinstance(result, VisaBusy) for result in results)
            assert 4 == sum(isinstance(result, Grant) for result in results)
            setting.api.open.clear()
            again = [setting.ask(f"u{number}") for number in range(4)]
            await _settled(lambda: setting.api.under_way == 4)
            setting.api.open.set()
            await asyncio.gather(*again)

        async def run() -> None:
            await test(Setting(patience_s=0.0))

        asyncio.run(run())

    def test_246_who_has_a_place_of_its_client_and_none_of_all_gives_it_back(self) -> None:
        """Both kinds of place are free again afterwards."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            first = [
                setting.ask(f"{client}{number}", client=client) for client in "abcde" for number in range(4)
            ]
            await _settled(lambda: setting.api.under_way == 20)
            for number in range(5):
                with pytest.raises(VisaBusy):
                    await setting.grant(f"f{number}", client="f")
            setting.api.open.set()
            await asyncio.gather(*first)
            setting.api.open.clear()
            second = [setting.ask(f"g{number}", client="f") for number in range(4)]
            await _settled(lambda: setting.api.under_way == 4)
            setting.api.open.set()
            await asyncio.gather(*second)
            assert {} == setting.authorization._turns._clients

        async def run() -> None:
            await test(Setting(patience_s=0.0))

        asyncio.run(run())

    def test_246_the_queue_has_an_end(self) -> None:
        """Beyond it the answer comes at once."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            count = MOST_QUESTIONS + MOST_WAITING
            waiting = [setting.ask(f"t{number}", client=f"{number % 10}") for number in range(count)]
            await _settled(lambda: setting.authorization._turns._waiting == MOST_WAITING)
            await setting.refused(VisaBusy, "one more")
            setting.api.open.set()
            await asyncio.gather(*waiting)

        _run(test)

    def test_246_a_clients_part_of_the_queue_has_an_end(self) -> None:
        """Beyond it this client is answered at once; another one is asked for."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            waiting = [setting.ask(f"t{number}") for number in range(MOST_WAITING_OF_A_CLIENT)]
            await _settled(lambda: len(setting.authorization._questions) == MOST_WAITING_OF_A_CLIENT)
            await setting.refused(VisaBusy, "one more")
            waiting.append(setting.ask("of another", client="b"))
            await _settled(lambda: setting.api.under_way == 5)
            setting.api.open.set()
            await asyncio.gather(*waiting)

        _run(test)

    def test_closing_gives_up_what_is_under_way(self) -> None:
        """Whoever waits is told by cancellation, and nothing is left."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [setting.ask(f"t{number}") for number in range(9)]
            await _settled(lambda: setting.api.under_way == 4)
            await setting.authorization.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            assert (0, {}, {}) == (
                setting.api.under_way,
                setting.authorization._questions,
                setting.authorization._turns._clients,
            )

        _run(test)
