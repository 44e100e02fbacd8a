"""Who is asked, how often, and how long an answer counts; the clock and the API are the tests' own."""

import asyncio
from collections.abc import Awaitable

import pytest

from support.grants import REUSE_S, STALE_S, Setting, jwt, run, settled, turns
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
from visa_jupyter_proxy.worker.access import authorization as module
from visa_jupyter_proxy.worker.access.authorization import BRIEF_S
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.access.turns import (
    MOST_QUESTIONS,
    MOST_QUESTIONS_OF_STRANGERS,
    MOST_WAITING,
    MOST_WAITING_OF_A_CLIENT,
)
from visa_jupyter_proxy.worker.http.credentials import AccessToken


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

        run(test)

    def test_132_the_first_asker_may_leave(self) -> None:
        """The question goes on for the others."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            first = setting.ask()
            await settled(lambda: bool(setting.api.asked))
            others = [setting.ask() for _ in range(99)]
            await turns()
            first.cancel()
            await settled(first.done)
            setting.api.open.set()
            grants = await asyncio.gather(*others)
            assert (1, 1, True) == (len(set(map(id, grants))), len(setting.api.asked), first.cancelled())

        run(test)

    def test_all_askers_may_leave(self) -> None:
        """The answer still fills the cache: the next attempt finds it (contract section 4)."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            asker = setting.ask()
            await settled(lambda: bool(setting.api.asked))
            asker.cancel()
            await settled(asker.done)
            setting.api.open.set()
            await settled(lambda: setting.api.under_way == 0)
            await setting.grant()
            assert 1 == len(setting.api.asked)

        run(test)

    def test_a_refusal_that_nobody_waits_for_is_no_noise(self) -> None:
        """No task is left with an exception that nobody has seen: asyncio would say so (an error here)."""
        complaints: list[object] = []

        async def test(setting: Setting) -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            setting.api.open.clear()
            setting.api.refuses = VisaUnreachable("down")
            asker = setting.ask()
            await settled(lambda: bool(setting.api.asked))
            asker.cancel()
            await settled(asker.done)
            setting.api.open.set()
            await settled(lambda: setting.api.under_way == 0)

        run(test)
        assert [] == complaints

    def test_134_tokens_and_instances_are_asked_for_apart(self) -> None:
        """Each whole token for itself, however alike they are (114, 119)."""

        async def test(setting: Setting) -> None:
            one, other = setting.jwt(sub="anna"), setting.jwt(sub="anna") + "="
            await asyncio.gather(setting.grant(one), setting.grant(other), setting.grant(one, 13))
            assert sorted([(one, 12), (other, 12), (one, 13)]) == sorted(setting.api.asked)

        run(test)

    def test_114_claims_never_grant(self) -> None:
        """A forged token with the claims of one that is cached is asked about, and refused."""

        async def test(setting: Setting) -> None:
            good = setting.jwt(sub="anna", employeeNumber="1")
            await setting.grant(good)
            setting.api.refuses = TokenRejected("401")
            await setting.refused(TokenRejected, good[:-1] + "x")
            assert (good, good[:-1] + "x") == tuple(token for token, _ in setting.api.asked)
            await setting.grant(good)

        run(test)


class TestLifetimes:
    """How long an answer counts."""

    def test_133_a_grant_lives_so_long(self) -> None:
        """Then the API is asked again, and its answer counts."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = InstanceNotFound("404")
            setting.now += REUSE_S - 0.001
            await setting.grant()
            setting.now += 0.001
            await setting.refused(InstanceNotFound)
            assert 2 == len(setting.api.asked)

        run(test)

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

        run(test)

    @pytest.mark.parametrize("failure", [VisaUnreachable, VisaTimeout, VisaInvalid])
    def test_a_failure_is_not_remembered(self, failure: type[ProxyError]) -> None:
        """It says nothing of the token."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = failure("no")
            await setting.refused(failure)
            setting.api.refuses = None
            await setting.grant()

        run(test)

    def test_198_an_instance_without_an_address_is_not_remembered(self) -> None:
        """It may have one the next moment."""

        async def test(setting: Setting) -> None:
            setting.api.host = None
            await setting.refused(InstanceNotReady)
            setting.api.host = "127.0.0.1"
            await setting.refused(InstanceAddressRefused)
            setting.api.host = "10.0.0.13"
            assert "10.0.0.13" == (await setting.grant()).host

        run(test)

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

        run(test)

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

        run(test)

    def test_exp_shortens_the_brief_ones_too(self) -> None:
        """Whatever the state of the instance."""

        async def test(setting: Setting) -> None:
            setting.api.state = "BUILDING"
            assert setting.now + 1 == (await setting.grant(setting.jwt(exp=1))).expires

        run(test)

    def test_exp_never_lengthens(self) -> None:
        """It is a claim of the token."""

        async def test(setting: Setting) -> None:
            assert setting.now + REUSE_S == (await setting.grant(setting.jwt(exp=1e9))).expires

        run(test)

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

        run(test)

    def test_234_a_token_that_is_past_exp_by_our_clock_counts_for_ten_seconds(self) -> None:
        """The API has accepted it: then our clock is wrong."""

        async def test(setting: Setting) -> None:
            assert setting.now + 10 == (await setting.grant(setting.jwt(exp=-5))).expires
            assert setting.now + 10 == (await setting.grant(setting.jwt(exp=0))).expires

        run(test)

    def test_no_lifetime_is_no_cache(self) -> None:
        """`CACHE_REFRESH_TIME_S=0`: every request is asked about, those at the same time together."""

        async def test(setting: Setting) -> None:
            for _ in range(2):
                await asyncio.gather(setting.grant(), setting.grant())
            setting.api.state = "BUILDING"
            for _ in range(2):
                await setting.grant()
            assert 4 == len(setting.api.asked)

        run(test, reuse_s=0)

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

        run(test)


class TestUsers:
    """Whom a grant belongs to, for logs and records alone."""

    def test_the_subject_names_the_user(self) -> None:
        """As the accepted token states it."""

        async def test(setting: Setting) -> None:
            assert "anna" == (await setting.grant(setting.jwt(sub="anna"))).user

        run(test)

    @pytest.mark.parametrize(
        "token",
        [
            "abc123",
            "a.b",
            "a.b.c.d",
            "..",
            "a.!.c",
            jwt(b"[]"),
            jwt(b"null"),
            jwt(b'{"sub": ""}'),
            jwt(b'{"sub": null}'),
            jwt(b'{"sub": 7}'),
            jwt(b'{"sub": "x", "exp": NaN}'),
            jwt(b'{"sub": "x", "exp": "soon"}'),
            jwt(b'{"sub": "x", "exp": 1e999}'),
            jwt(b'{"sub": "\xff"}'),
            jwt(b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        ],
        ids=lambda token: token[:20],
    )
    def test_117_129_any_token_that_the_api_accepts_will_do(self, token: str) -> None:
        """Without readable claims it is its own user; nothing of it is shown."""

        async def test(setting: Setting) -> None:
            grant = await setting.grant(token)
            assert (setting.now + REUSE_S, True) == (grant.expires, grant.user.startswith("token:"))
            assert token not in grant.user
            assert grant.user != (await setting.grant("another")).user

        run(test)

    def test_what_the_api_accepts_is_told(self) -> None:
        """With its user, also when the instance has no address yet; what it refuses is not."""

        async def test(setting: Setting) -> None:
            token = setting.jwt(sub="anna")
            setting.api.refuses = InstanceNotFound("404")
            await setting.refused(InstanceNotFound, "not the owner")
            setting.api.refuses, setting.api.host = None, None
            await setting.refused(InstanceNotReady, token)
            assert [(token, "anna", 12)] == setting.accepted

        run(test)

    def test_129_the_last_of_two_equal_claims_counts(self) -> None:
        """As usual in JSON; neither grants anything."""

        async def test(setting: Setting) -> None:
            assert "b" == (await setting.grant(jwt(b'{"sub": "a", "sub": "b"}'))).user

        run(test)


class TestVerifying:
    """What is refused without the API, before all else."""

    def test_what_is_refused_here_is_not_asked_about(self) -> None:
        """Neither with nor without a side effect; and it is remembered, as any refusal is."""

        async def test(setting: Setting) -> None:
            setting.authorization._verify = verify
            await setting.refused(TokenRejected, "forged")
            with pytest.raises(TokenRejected):
                await setting.authorization.look(AccessToken("forged"), 12, "a")
            setting.now += BRIEF_S
            with pytest.raises(TokenRejected):
                await setting.authorization.look(AccessToken("forged"), 12, "a")
            assert ([], 2) == (setting.api.asked, len(verified))

        verified: list[str] = []

        async def verify(token: str) -> None:
            verified.append(token)
            raise TokenRejected("no known key has signed it")

        run(test)

    def test_forged_tokens_do_not_push_out_what_the_api_has_rejected(self) -> None:
        """That is remembered for long; they can come by the thousand."""

        async def test(setting: Setting) -> None:
            setting.authorization._verify = verify
            for number in range(10):
                await setting.refused(TokenRejected, f"forged{number}")
            assert {} == setting.authorization._rejected

        async def verify(token: str) -> None:
            raise TokenRejected(f"no known key has signed {token[:0]}it")

        run(test)

    def test_what_is_remembered_of_a_refusal_holds_nothing_alive(self) -> None:
        """Its traceback would: frames, and in them the token."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = TokenRejected("401")
            await setting.refused(TokenRejected)
            ((_, refusal),) = setting.authorization._refusals.values()
            assert (TokenRejected, "401", None) == (type(refusal), str(refusal), refusal.__traceback__)

        run(test)


class TestBounds:
    """What is remembered, and what waits, is bounded."""

    def test_a_tick_forgets_what_is_over(self) -> None:
        """And nothing else."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = InstanceNotFound("404")
            await setting.refused(InstanceNotFound, "other")
            sizes = []
            for passed in (0.0, 2.0, REUSE_S + STALE_S):
                setting.authorization.tick(setting.now + passed)
                sizes.append((len(setting.authorization._grants), len(setting.authorization._refusals)))
            assert [(1, 1), (1, 0), (0, 0)] == sizes

        run(test)

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

        run(test)

    @pytest.mark.parametrize("client", ["good", "evil0"])
    def test_246_strangers_leave_room_for_those_who_are_known(self, client: str) -> None:
        """Whose grant has just ended is asked about at once, even from an address that floods."""

        async def test(setting: Setting) -> None:
            known = [f"known{number}" for number in range(4)]
            for token in known:
                await setting.grant(token, client=client)
            setting.now += REUSE_S
            setting.api.open.clear()
            forged = [
                setting.ask(f"forged{address}-{number}", client=f"evil{address}")
                for address in range(50)
                for number in range(10)
            ]
            await settled(lambda: setting.api.under_way == MOST_QUESTIONS_OF_STRANGERS)
            again = [setting.ask(token, client=client) for token in known]
            await settled(lambda: setting.api.under_way == MOST_QUESTIONS)
            assert set(known) <= {token for token, _ in setting.api.asked[4:]}
            setting.api.open.set()
            await asyncio.gather(*again, *forged)
            assert MOST_QUESTIONS == setting.api.most_under_way

        run(test)

    def test_246_four_questions_for_each_client_and_twenty_in_all(self) -> None:
        """The others wait for their turn, and all get one; some of the twenty are for who is known."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [
                setting.ask(f"{client}{number}", client=client)
                for client in "abcdefgh"
                for number in range(9)
            ]
            await turns()
            asked = [token[0] for token, _ in setting.api.asked]
            assert MOST_QUESTIONS_OF_STRANGERS == setting.api.under_way
            assert {4} == {asked.count(client) for client in set(asked)}
            setting.api.open.set()
            await asyncio.gather(*tasks)
            assert (72, MOST_QUESTIONS_OF_STRANGERS) == (len(setting.api.asked), setting.api.most_under_way)
            assert {} == setting.questions._turns._clients

        run(test)

    def test_246_one_client_does_not_stand_in_the_way_of_another(self) -> None:
        """Nor of those who are known already (138)."""

        async def test(setting: Setting) -> None:
            await setting.grant("known")
            setting.api.open.clear()
            forged = [setting.ask(f"forged{number}", client="evil") for number in range(200)]
            await turns()
            other = setting.ask("other", client="good")
            await turns()
            await setting.grant("known")
            assert ("other", 12) in setting.api.asked
            assert 5 == setting.api.under_way
            setting.api.open.set()
            await asyncio.gather(other, *forged)

        run(test)

    def test_246_who_waits_too_long_is_told_so(self) -> None:
        """503; what is under way goes on, and the places are all there again afterwards."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [setting.ask(f"t{number}") for number in range(9)]
            ended = [asyncio.create_task(_ends(task)) for task in tasks]
            # With no patience at all, whoever has to wait is refused.
            await settled(lambda: sum(task.done() for task in ended) == 5)
            setting.api.open.set()
            results = await asyncio.gather(*ended)
            assert 5 == sum(isinstance(result, VisaBusy) for result in results)
            assert 4 == sum(isinstance(result, Grant) for result in results)
            setting.api.open.clear()
            again = [setting.ask(f"u{number}") for number in range(4)]
            await settled(lambda: setting.api.under_way == 4)
            setting.api.open.set()
            await asyncio.gather(*again)

        run(test, patience_s=0.0)

    def test_246_who_has_a_place_of_its_client_and_none_of_all_gives_it_back(self) -> None:
        """Both kinds of place are free again afterwards."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            first = [
                setting.ask(f"{client}{number}", client=client) for client in "abcd" for number in range(4)
            ]
            await settled(lambda: setting.api.under_way == MOST_QUESTIONS_OF_STRANGERS)
            for number in range(5):
                with pytest.raises(VisaBusy):
                    await setting.grant(f"f{number}", client="f")
            setting.api.open.set()
            await asyncio.gather(*first)
            setting.api.open.clear()
            second = [setting.ask(f"g{number}", client="f") for number in range(4)]
            await settled(lambda: setting.api.under_way == 4)
            setting.api.open.set()
            await asyncio.gather(*second)
            assert {} == setting.questions._turns._clients

        run(test, patience_s=0.0)

    def test_246_the_queue_has_an_end(self) -> None:
        """Beyond it the answer comes at once."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            count = MOST_QUESTIONS_OF_STRANGERS + MOST_WAITING
            waiting = [setting.ask(f"t{number}", client=f"{number % 10}") for number in range(count)]
            await settled(lambda: setting.questions._turns._waiting == MOST_WAITING)
            await setting.refused(VisaBusy, "one more")
            setting.api.open.set()
            await asyncio.gather(*waiting)

        run(test)

    def test_246_a_clients_part_of_the_queue_has_an_end(self) -> None:
        """Beyond it this client is answered at once; another one is asked for."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            waiting = [setting.ask(f"t{number}") for number in range(MOST_WAITING_OF_A_CLIENT)]
            await settled(lambda: len(setting.authorization._under_way) == MOST_WAITING_OF_A_CLIENT)
            await setting.refused(VisaBusy, "one more")
            waiting.append(setting.ask("of another", client="b"))
            await settled(lambda: setting.api.under_way == 5)
            setting.api.open.set()
            await asyncio.gather(*waiting)

        run(test)

    def test_closing_gives_up_what_is_under_way(self) -> None:
        """Whoever waits is told by cancellation, and nothing is left."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            tasks = [setting.ask(f"t{number}") for number in range(9)]
            await settled(lambda: setting.api.under_way == 4)
            await setting.authorization.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            assert (0, 0, {}) == (
                setting.api.under_way,
                len(setting.authorization._under_way),
                setting.questions._turns._clients,
            )

        run(test)


class TestWhileTheApiIsAway:
    """Case 137: the last grant goes on, and nobody who has one waits twice."""

    @pytest.mark.parametrize("failure", [VisaUnreachable, VisaTimeout, VisaInvalid])
    def test_137_the_last_grant_goes_on(self, failure: type[ProxyError]) -> None:
        """For so long, and not a moment longer; then the failure is told."""

        async def test(setting: Setting) -> None:
            granted = await setting.grant()
            setting.api.refuses = failure("down")
            setting.now += REUSE_S
            end = setting.now + STALE_S
            while setting.now < end:
                assert granted is await setting.grant()
                await turns()
                setting.now += 1.0
            await setting.refused(failure)

        run(test)

    def test_137_only_for_that_token_and_instance(self) -> None:
        """Nobody else has been granted anything."""

        async def test(setting: Setting) -> None:
            await setting.grant("token", 12)
            setting.api.refuses = VisaUnreachable("down")
            setting.now += REUSE_S
            await setting.refused(VisaUnreachable, "other")
            with pytest.raises(VisaUnreachable):
                await setting.grant("token", 13)
            await setting.grant("token", 12)

        run(test)

    @pytest.mark.parametrize("refusal", [TokenRejected, InstanceNotFound])
    def test_137_never_after_a_refusal(self, refusal: type[ProxyError]) -> None:
        """Whatever was granted before it."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.now += REUSE_S
            setting.api.refuses = refusal("no")
            await setting.refused(refusal)
            setting.now += BRIEF_S
            setting.api.refuses = VisaUnreachable("down")
            await setting.refused(VisaUnreachable)

        run(test)

    def test_137_a_token_that_was_rejected_goes_on_nowhere(self) -> None:
        """Until the API has accepted it again: a 401 is about the token, not about the instance."""

        async def test(setting: Setting) -> None:
            await setting.grant("token", 12)
            setting.api.refuses = TokenRejected("401")
            with pytest.raises(TokenRejected):
                await setting.grant("token", 13)
            setting.now += REUSE_S
            setting.api.refuses = VisaUnreachable("down")
            await setting.refused(VisaUnreachable)
            setting.api.refuses = None
            await setting.grant("token", 13)
            setting.api.refuses = VisaUnreachable("down")
            assert 12 == (await setting.grant("token", 12)).instance_id

        run(test)

    def test_137_never_past_exp(self) -> None:
        """Nor at all when the API has accepted a token that is past it by our clock."""

        async def test(setting: Setting) -> None:
            token, late = setting.jwt(exp=90), setting.jwt(exp=-1)
            await setting.grant(token)
            await setting.grant(late)
            setting.api.refuses = VisaUnreachable("down")
            setting.now += 10
            await setting.refused(VisaUnreachable, late)
            setting.now += 79.9
            await setting.grant(token)
            await turns()
            setting.now += 0.1
            await setting.refused(VisaUnreachable, token)

        run(test)

    def test_137_zero_is_off(self) -> None:
        """`CACHE_STALE_IF_ERROR_S=0`."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = VisaUnreachable("down")
            setting.now += REUSE_S
            await setting.refused(VisaUnreachable)

        run(test, stale_s=0)

    def test_137_an_address_that_does_not_answer_is_not_used_again(self) -> None:
        """A failed connect drops the grant, whatever the API does (case 135)."""

        async def test(setting: Setting) -> None:
            grant = await setting.grant()
            setting.api.refuses = VisaUnreachable("down")
            setting.authorization.forget(grant)
            await setting.refused(VisaUnreachable)

        run(test)

    def test_137_without_a_cache_too(self) -> None:
        """`CACHE_REFRESH_TIME_S=0` asks every time; what was granted last goes on all the same."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = VisaUnreachable("down")
            await setting.grant()
            setting.now += STALE_S
            await setting.refused(VisaUnreachable)

        run(test, reuse_s=0)

    def test_one_waits_for_the_first_question_and_for_no_other(self) -> None:
        """But for a second: it is asked one question at a time, which nobody waits for to its end."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.now += REUSE_S
            setting.api.open.clear()
            first = setting.ask()
            await settled(lambda: setting.api.under_way == 1)
            setting.api.refuses = VisaTimeout("slow")
            setting.api.open.set()
            grant = await first
            setting.api.open.clear()
            for _ in range(3):
                setting.now += module.STALE_S
                assert grant is await setting.grant()
                await settled(lambda: setting.api.under_way == 1)
            assert 3 == len(setting.api.asked)
            setting.api.refuses = InstanceNotFound("404")
            setting.api.open.set()
            await settled(lambda: setting.api.under_way == 0)
            await turns()
            await setting.refused(InstanceNotFound)

        run(test)

    @pytest.mark.parametrize("refusal", [TokenRejected, InstanceNotFound])
    def test_an_api_that_answers_has_the_last_word(self, refusal: type[ProxyError]) -> None:
        """One failure, of anybody's question, lets nobody in whom it refuses a moment later."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            setting.api.refuses = VisaTimeout("slow for once")
            await setting.refused(VisaTimeout, "stranger")
            setting.now += REUSE_S
            await setting.grant()
            setting.now += module.STALE_S
            setting.api.refuses = refusal("not any more")
            await setting.refused(refusal)

        run(test)

    def test_who_has_a_grant_does_not_wait_while_the_api_is_known_to_be_down(self) -> None:
        """Others have found out."""

        async def test(setting: Setting) -> None:
            grant = await setting.grant()
            setting.api.refuses = VisaUnreachable("down")
            for number in range(5):
                await setting.refused(VisaUnreachable, f"stranger{number}")
            setting.now += REUSE_S
            setting.api.open.clear()  # whoever asked would wait for ever
            assert grant is await setting.grant()
            assert setting.questions._circuit.is_open
            setting.api.open.set()
            await turns()

        run(test)

    def test_busy_alone_prolongs_nothing(self) -> None:
        """Whoever has lost an instance could keep us busy; while the API fails, busy is a failure too."""

        async def test(setting: Setting) -> None:
            others = [f"other{number}" for number in range(MOST_QUESTIONS)]
            for token in others:
                await setting.grant(token)
            setting.now += REUSE_S - 1
            grant = await setting.grant()
            setting.now += 1

            async def keep_busy() -> list[asyncio.Task[ProxyError | Grant]]:
                setting.api.open.clear()
                tasks = [asyncio.create_task(_ends(setting.ask(token))) for token in others]
                await settled(lambda: setting.api.under_way == MOST_QUESTIONS)
                return tasks

            busy = await keep_busy()
            setting.now += REUSE_S
            await setting.refused(VisaBusy)
            setting.api.open.set()
            await asyncio.gather(*busy)
            setting.api.refuses = VisaTimeout("slow")
            await setting.refused(VisaTimeout, "stranger")
            setting.now += REUSE_S
            setting.api.refuses = None
            busy = await keep_busy()
            assert grant is await setting.grant()
            setting.api.open.set()
            await asyncio.gather(*busy)

        run(test, patience_s=0.0)

    def test_those_who_failed_together_do_not_ask_together(self) -> None:
        """A grant goes on for half of five seconds to all of it, by chance."""

        async def test(setting: Setting) -> None:
            setting.authorization._jitter = iter([0.0, 0.5, 1.0]).__next__
            tokens = [f"t{number}" for number in range(3)]
            for token in tokens:
                await setting.grant(token)
            setting.now += REUSE_S
            setting.api.refuses = VisaUnreachable("down")
            grants = [await setting.grant(token) for token in tokens]
            assert [5.0, 3.75, 2.5] == [grant.expires - setting.now for grant in grants]

        run(test)


class TestLooks:
    """How an instance is, for a page that waits: nothing is granted by it."""

    def test_246_who_is_known_asks_one_at_a_time(self) -> None:
        """However many pages there are: what need not wait behind strangers must not be without end."""

        async def test(setting: Setting) -> None:
            await setting.grant()
            token = AccessToken("token")
            looks = [setting.authorization.look(token, 12, "a") for _ in range(100)]
            found = await asyncio.gather(*looks)
            assert ({"10.0.0.12"}, 1) == ({host for _, host in found}, len(setting.api.looked))

        run(test)

    def test_the_owner_is_told_where_it_is(self) -> None:
        """And neither is a grant made, nor is the question that moves the clock asked."""

        async def test(setting: Setting) -> None:
            access, host = await setting.authorization.look(AccessToken("token"), 12, "a")
            assert ("OWNER", True, "10.0.0.12") == (access.role, access.is_up, host)
            assert ([], [("token", 12)]) == (setting.api.asked, setting.api.looked)
            assert setting.authorization.known(AccessToken("token"), 12) is None

        run(test)

    @pytest.mark.parametrize("role", ["USER", "GUEST", "SUPPORT", None])
    def test_a_member_is_not_the_owner(self, role: str | None) -> None:
        """What is no owner's is not found, as ever."""

        async def test(setting: Setting) -> None:
            setting.api.role = role
            with pytest.raises(InstanceNotFound):
                await setting.authorization.look(AccessToken("token"), 12, "a")

        run(test)

    def test_the_state_explains_a_missing_address(self) -> None:
        """So that people are told what they wait for."""

        async def test(setting: Setting) -> None:
            setting.api.host, setting.api.state = None, "BUILDING"
            with pytest.raises(InstanceNotReady) as caught:
                await setting.authorization.look(AccessToken("token"), 12, "a")
            assert "BUILDING" == caught.value.state
            with pytest.raises(InstanceNotReady) as caught:
                await setting.grant()
            assert "BUILDING" == caught.value.state

        run(test)

    def test_an_address_must_be_allowed(self) -> None:
        """As for a request."""

        async def test(setting: Setting) -> None:
            setting.api.host = "127.0.0.1"
            with pytest.raises(InstanceAddressRefused):
                await setting.authorization.look(AccessToken("token"), 12, "a")

        run(test)

    def test_134_refusals_are_remembered(self) -> None:
        """For requests too, and the other way round."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = TokenRejected("401")
            for _ in range(3):
                with pytest.raises(TokenRejected):
                    await setting.authorization.look(AccessToken("token"), 12, "a")
            await setting.refused(TokenRejected)
            assert ([], 1) == (setting.api.asked, len(setting.api.looked))

        run(test)
