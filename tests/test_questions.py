"""How the VISA API is asked while it is down, and by whom it can be taken for that."""

import asyncio

import pytest

from support.grants import Setting, run, settled, turns
from visa_jupyter_proxy.errors import (
    InstanceNotFound,
    ProxyError,
    TokenRejected,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.access.questions import LARGEST_DELAY_S
from visa_jupyter_proxy.worker.access.turns import MOST_QUESTIONS_OF_STRANGERS


async def _goes_down(setting: Setting) -> None:
    setting.api.refuses = VisaUnreachable("refused")
    for number in range(5):
        await setting.refused(VisaUnreachable, f"t{number}")
    assert setting.questions._circuit.is_open
    setting.api.asked.clear()


async def _hanging_probe(setting: Setting) -> asyncio.Task[Grant]:
    setting.now += LARGEST_DELAY_S
    setting.api.open.clear()
    probe = setting.ask("probe")
    await settled(lambda: setting.api.under_way == 1)
    return probe


class TestDown:
    """Five questions in a row without an answer."""

    @pytest.mark.parametrize("failure", [VisaUnreachable, VisaTimeout])
    def test_then_everybody_is_refused_at_once(self, failure: type[ProxyError]) -> None:
        """503: the API could not be reached. It is not asked, however many want to."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = failure("no answer")
            for number in range(5):
                await setting.refused(failure, f"t{number}")
            for number in range(100):
                await setting.refused(VisaUnreachable, f"u{number}")
            assert 5 == len(setting.api.asked)

        run(test)

    def test_any_answer_between_says_that_it_is_up(self) -> None:
        """A refusal is one."""

        async def test(setting: Setting) -> None:
            silence = [VisaTimeout("")] * 4
            answers = [*silence, TokenRejected(""), *silence, InstanceNotFound("")]
            for number, answer in enumerate(answers):
                setting.api.refuses = answer
                await setting.refused(type(answer), f"t{number}")
            assert not setting.questions.is_api_in_doubt

        run(test)

    def test_who_waits_for_a_turn_is_refused_when_it_goes_down(self) -> None:
        """Nobody waits for one time-out after the other."""

        async def test(setting: Setting) -> None:
            setting.api.open.clear()
            setting.api.refuses = VisaTimeout("slow")
            tasks = [setting.ask(f"t{number}", client=f"{number % 10}") for number in range(200)]
            await settled(lambda: setting.api.under_way == MOST_QUESTIONS_OF_STRANGERS)
            setting.api.open.set()
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            # Five of sixteen have to have failed, and turns of others begin meanwhile.
            assert len(setting.api.asked) <= 2 * MOST_QUESTIONS_OF_STRANGERS
            assert {VisaTimeout, VisaUnreachable} == set(map(type, errors))

        run(test)

    def test_who_has_no_turn_is_refused_at_once_too(self) -> None:
        """While the only turns of a client wait for a probe that does not end."""

        async def test(setting: Setting) -> None:
            await _goes_down(setting)
            probe = await _hanging_probe(setting)
            for number in range(20):
                await setting.refused(VisaUnreachable, f"t{number}")
            setting.api.open.set()
            with pytest.raises(VisaUnreachable):
                await probe

        run(test)


class TestRecovery:
    """One question passes from time to time."""

    def test_one_probe_at_a_time_and_its_answer_lets_all_in(self) -> None:
        """Whoever comes first when it is time."""

        async def test(setting: Setting) -> None:
            await _goes_down(setting)
            setting.now += LARGEST_DELAY_S
            await setting.refused(VisaUnreachable, "probe")
            await setting.refused(VisaUnreachable, "no probe")
            assert ["probe"] == [token for token, _ in setting.api.asked]
            setting.now += LARGEST_DELAY_S
            setting.api.refuses = None
            await setting.grant("second probe")
            await setting.grant("anybody")
            assert not setting.questions.is_api_in_doubt

        run(test)

    def test_it_is_never_longer_than_five_seconds_to_the_next(self) -> None:
        """However long it has been down."""

        async def test(setting: Setting) -> None:
            await _goes_down(setting)
            for number in range(50):
                setting.now += LARGEST_DELAY_S
                await setting.refused(VisaUnreachable, f"u{number}")
            assert 50 == len(setting.api.asked)

        run(test)

    def test_a_probe_that_is_given_up_is_followed_by_another(self) -> None:
        """It has said nothing."""

        async def test(setting: Setting) -> None:
            await _goes_down(setting)
            probe = await _hanging_probe(setting)
            await setting.authorization.close()
            await turns()
            assert probe.cancelled()
            setting.api.refuses = None
            setting.api.open.set()
            await setting.grant("another")

        run(test)


class TestNonsense:
    """Answers that make no sense."""

    def test_nobody_shuts_the_api_for_others_with_a_token_that_it_chokes_on(self) -> None:
        """Each gets the answer that the API gave, and the API is asked by the next one."""

        async def test(setting: Setting) -> None:
            setting.api.refuses = VisaInvalid("500")
            for number in range(100):
                await setting.refused(VisaInvalid, f"forged{number}")
            setting.api.refuses = None
            await setting.grant("good")
            assert 101 == len(setting.api.asked)

        run(test)

    def test_nor_with_an_instance_about_which_it_always_fails(self) -> None:
        """It counts once, however often it is asked for."""

        async def test(setting: Setting) -> None:
            await setting.grant("token")
            setting.api.refuses = VisaInvalid("500")
            setting.now += 60.0
            for _ in range(15):
                setting.now += 6.0
                await setting.grant("token")
                await turns()
            setting.api.refuses = None
            await setting.grant("good")
            assert not setting.questions._circuit.is_open

        run(test)

    def test_five_known_ones_that_get_none_are_an_outage(self) -> None:
        """They had answers before."""

        async def test(setting: Setting) -> None:
            tokens = [f"t{number}" for number in range(5)]
            for token in tokens:
                await setting.grant(token)
            setting.now += 60.0
            setting.api.refuses = VisaInvalid("500")
            for token in tokens:
                await setting.grant(token)
                await turns()
            assert setting.questions._circuit.is_open

        run(test)

    def test_a_probe_of_a_stranger_says_nothing(self) -> None:
        """Another one may ask in a moment: who asks the most often is not always the one."""

        async def test(setting: Setting) -> None:
            await _goes_down(setting)
            setting.now += LARGEST_DELAY_S
            setting.api.refuses = VisaInvalid("500")
            await setting.refused(VisaInvalid, "stranger")
            setting.api.refuses = None
            await setting.refused(VisaUnreachable, "another")
            setting.now += 0.25
            await setting.grant("another")

        run(test)
