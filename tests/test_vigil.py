"""The vigil: what follows from what is heard of a user's access, and who is asked about when."""

import ipaddress
import random
from collections import Counter
from itertools import product
from typing import Final

import pytest

from visa_jupyter_proxy.control.vigil.answers import Told, told_of_member, told_of_owner
from visa_jupyter_proxy.control.vigil.table import GRACE, TABLE, Grace, Heard, Standing, Step
from visa_jupyter_proxy.control.vigil.watches import Watch, Watches
from visa_jupyter_proxy.mailbox import AccessHeld, EndTunnels
from visa_jupyter_proxy.visa_api import Access

RECHECK: Final = 60.0
CONFIRM: Final = 5.0
GRACE_S: Final = 600.0
HOST: Final = "10.0.0.7"

ANSWERS: Final = (Heard.OWNER, Heard.NOT_OWNER, Heard.GOING, Heard.TOKEN_REFUSED, Heard.NOTHING)

type Outcome = tuple[Standing, str, tuple[int, str] | None]
"""How it stands, when it is asked about next, and the code and reason of an end."""

NO_END: Final = None
REVOKED: Final = (1008, "access revoked")
SIGNED_OUT: Final = (1008, "not signed in any more")
GONE: Final = (1001, "instance stopped or deleted")

CELLS: Final[dict[tuple[Standing, Heard], Outcome]] = {
    (Standing.GOOD, Heard.OWNER): (Standing.GOOD, "period", NO_END),
    (Standing.GOOD, Heard.NOT_OWNER): (Standing.DENIED, "soon", NO_END),
    (Standing.GOOD, Heard.GOING): (Standing.GOING, "soon", NO_END),
    (Standing.GOOD, Heard.TOKEN_REFUSED): (Standing.DOUBTED, "period", NO_END),
    (Standing.GOOD, Heard.NOTHING): (Standing.GOOD, "period", NO_END),
    (Standing.GOOD, Heard.TOKEN_ACCEPTED): (Standing.GOOD, "as before", NO_END),
    (Standing.GOOD, Heard.ACCEPTED_ELSEWHERE): (Standing.GOOD, "as before", NO_END),
    (Standing.GOOD, Heard.GRACE_OVER): (Standing.GOOD, "as before", NO_END),
    (Standing.DENIED, Heard.OWNER): (Standing.GOOD, "period", NO_END),
    (Standing.DENIED, Heard.NOT_OWNER): (Standing.GOOD, "period", REVOKED),
    (Standing.DENIED, Heard.GOING): (Standing.GOING, "soon", NO_END),
    (Standing.DENIED, Heard.TOKEN_REFUSED): (Standing.DENIED, "period", NO_END),
    (Standing.DENIED, Heard.NOTHING): (Standing.DENIED, "soon", NO_END),
    (Standing.DENIED, Heard.TOKEN_ACCEPTED): (Standing.DENIED, "soon", NO_END),
    (Standing.DENIED, Heard.ACCEPTED_ELSEWHERE): (Standing.DENIED, "as before", NO_END),
    (Standing.DENIED, Heard.GRACE_OVER): (Standing.GOOD, "period", SIGNED_OUT),
    (Standing.GOING, Heard.OWNER): (Standing.GOOD, "period", NO_END),
    (Standing.GOING, Heard.NOT_OWNER): (Standing.DENIED, "soon", NO_END),
    (Standing.GOING, Heard.GOING): (Standing.GOOD, "period", GONE),
    (Standing.GOING, Heard.TOKEN_REFUSED): (Standing.GOING, "period", NO_END),
    (Standing.GOING, Heard.NOTHING): (Standing.GOING, "soon", NO_END),
    (Standing.GOING, Heard.TOKEN_ACCEPTED): (Standing.GOING, "soon", NO_END),
    (Standing.GOING, Heard.ACCEPTED_ELSEWHERE): (Standing.GOING, "as before", NO_END),
    (Standing.GOING, Heard.GRACE_OVER): (Standing.GOOD, "period", SIGNED_OUT),
    (Standing.DOUBTED, Heard.OWNER): (Standing.GOOD, "period", NO_END),
    (Standing.DOUBTED, Heard.NOT_OWNER): (Standing.DENIED, "soon", NO_END),
    (Standing.DOUBTED, Heard.GOING): (Standing.GOING, "soon", NO_END),
    (Standing.DOUBTED, Heard.TOKEN_REFUSED): (Standing.DOUBTED, "period", NO_END),
    (Standing.DOUBTED, Heard.NOTHING): (Standing.DOUBTED, "period", NO_END),
    (Standing.DOUBTED, Heard.TOKEN_ACCEPTED): (Standing.GOOD, "soon", NO_END),
    (Standing.DOUBTED, Heard.ACCEPTED_ELSEWHERE): (Standing.DOUBTED, "as before", NO_END),
    (Standing.DOUBTED, Heard.GRACE_OVER): (Standing.GOOD, "period", SIGNED_OUT),
}
"""What has to follow, written a second time and in other words than `TABLE`."""


def held(user: str = "anna", instance_id: int = 7, host: str = HOST, token: str = "T1") -> AccessHeld:
    """Say that there are tunnels of a user to an instance."""
    return AccessHeld(user=user, instance_id=instance_id, host=host, token=token)


class World:
    """One user with a tunnel to one instance, and a clock that stands still unless told otherwise."""

    def __init__(self, *, asks_others: bool = False, grace_s: float = GRACE_S) -> None:
        self.now = 1000.0
        # Without jitter a period is whole; the first question is then due at once.
        self.watches = Watches(
            recheck_s=RECHECK, grace_s=grace_s, asks_others=asks_others, jitter=lambda: 0.0
        )
        self.endings: list[EndTunnels] = []
        self.watches.held(1, held(), self.now)

    def watch(self) -> Watch:
        """Give the watch, by asking about it, now or when it is due."""
        at = self.watches.next_at()
        assert at is not None
        self.now = max(self.now, at)
        (watch,) = self.watches.due(self.now, 10)
        return watch

    def answer(self, heard: Heard, address: str | None = HOST) -> None:
        """Let time pass until the next question, and answer it so."""
        watch = self.watch()
        self.endings += self.watches.answered(watch, Told(heard, address), self.now)

    def hear(self, heard: Heard) -> None:
        """Let anything happen of what the table knows."""
        if heard in ANSWERS:
            self.answer(heard)
        elif heard is Heard.TOKEN_ACCEPTED:
            self.endings += self.watches.accepted("anna", 8, Told(Heard.OWNER, "10.0.0.8"), self.now)
        elif heard is Heard.ACCEPTED_ELSEWHERE:
            self.watches.elsewhere({("anna", 7): 1}, self.now)
            self.watches.elsewhere({("anna", 7): 2}, self.now)
        else:
            self.now += GRACE_S
            self.endings += self.watches.lapsed(self.now)

    def bring_to(self, standing: Standing, *, refused: bool = False) -> None:
        """Make it stand so; `refused`: with a token that is refused, so that the grace runs."""
        match standing:
            case Standing.GOOD:
                self.answer(Heard.OWNER)
            case Standing.DENIED:
                self.answer(Heard.NOT_OWNER)
            case Standing.GOING:
                self.answer(Heard.GOING)
            case Standing.DOUBTED:
                self.answer(Heard.TOKEN_REFUSED)
        if refused and standing is not Standing.DOUBTED:
            self.answer(Heard.TOKEN_REFUSED)

    def until_next(self) -> float:
        """Say in how many seconds it is asked about next."""
        at = self.watches.next_at()
        assert at is not None
        return at - self.now

    def ends(self) -> list[tuple[int, str]]:
        """Give the codes and reasons of what was ended."""
        return [(one.code, one.reason) for one in self.endings]


class TestTable:
    """Every cell, as the table has it and as it comes out."""

    def test_it_has_every_cell_and_no_other(self) -> None:
        """Four standings, eight things that are heard; and what becomes of the grace for each of these."""
        assert set(product(Standing, Heard)) == {*CELLS}
        assert {*CELLS} == {(standing, heard) for standing, row in TABLE.items() for heard in row}
        assert {*Heard} == {*GRACE}

    @pytest.mark.parametrize(("standing", "heard"), [*CELLS], ids=lambda one: str(one.value))
    def test_each_cell(self, standing: Standing, heard: Heard) -> None:
        """How it stands then, when it is asked about next, and what is ended."""
        world = World()
        refused = heard in (Heard.GRACE_OVER, Heard.ACCEPTED_ELSEWHERE) and standing is not Standing.GOOD
        world.bring_to(standing, refused=refused)
        before = world.now + world.until_next()
        world.hear(heard)
        expected, when, end = CELLS[standing, heard]
        seconds = {
            "period": RECHECK,
            "soon": min(CONFIRM, before - world.now) if heard not in ANSWERS else CONFIRM,
            "as before": before - world.now,
        }[when]
        assert ([] if end is None else [end]) == world.ends()
        assert seconds == pytest.approx(world.until_next())
        assert expected is world.watch().standing

    def test_only_firm_answers_and_a_grace_that_is_over_end_anything(self) -> None:
        """And no single answer does; silence and a refused token end nothing, whatever came before."""
        ending = {(standing, heard) for (standing, heard), (_, _, end) in CELLS.items() if end is not None}
        assert {Heard.NOT_OWNER, Heard.GOING, Heard.GRACE_OVER} == {heard for _, heard in ending}
        steps = {(s, h) for s, row in TABLE.items() for h in row if row[h][1] in (Step.REVOKE, Step.LEAVE)}
        assert ending == steps
        assert not any(standing is Standing.GOOD for standing, _ in ending)


class TestGrace:
    """How long somebody may stay without a token that is accepted."""

    def test_it_runs_from_the_first_refusal(self) -> None:
        """Later ones do not prolong it."""
        world = World()
        world.answer(Heard.TOKEN_REFUSED)
        began = world.now
        while world.now + RECHECK < began + GRACE_S:
            world.answer(Heard.TOKEN_REFUSED)
        assert [] == world.watches.lapsed(began + GRACE_S - 1)
        (ending,) = world.watches.lapsed(began + GRACE_S)
        assert ("anna", 7, *SIGNED_OUT, True, None) == (
            ending.user,
            ending.instance_id,
            ending.code,
            ending.reason,
            ending.forget_grants,
            ending.not_host,
        )
        assert [] == world.watches.lapsed(began + 10 * GRACE_S)

    @pytest.mark.parametrize("heard", [heard for heard, grace in GRACE.items() if grace is Grace.ENDS])
    def test_it_ends_with_whatever_shows_a_token_that_is_accepted(self, heard: Heard) -> None:
        """The owner's, or that of somebody who is no longer: then that counts."""
        world = World()
        world.answer(Heard.TOKEN_REFUSED)
        assert 1 == world.watches.doubted
        world.hear(heard)
        assert 0 == world.watches.doubted
        assert [] == world.watches.lapsed(world.now + 10 * GRACE_S)

    def test_silence_does_not_stop_it(self) -> None:
        """Who has signed out stays signed out while the API is down, too; it alone ends nothing."""
        world = World()
        world.answer(Heard.TOKEN_REFUSED)
        began = world.now
        world.answer(Heard.NOTHING)
        assert [SIGNED_OUT] == [(one.code, one.reason) for one in world.watches.lapsed(began + GRACE_S)]

    def test_rotation_for_ever(self) -> None:
        """A token that is refused between two others, each day long: nobody is ended."""
        world = World()
        for _ in range(24 * 60):
            world.answer(Heard.TOKEN_REFUSED)
            world.now += GRACE_S - 1
            world.hear(Heard.TOKEN_ACCEPTED)
            world.endings += world.watches.lapsed(world.now)
        assert [] == world.endings

    def test_none_at_all(self) -> None:
        """With a grace of 0 the first refusal ends it, for who has no newer token by then."""
        world = World(grace_s=0.0)
        world.answer(Heard.TOKEN_REFUSED)
        assert [SIGNED_OUT] == [(one.code, one.reason) for one in world.watches.lapsed(world.now)]

    def test_other_nodes_count(self) -> None:
        """While what they have accepted moves, it begins anew; when it stands still, it comes to its end."""
        world = World(asks_others=True)
        world.answer(Heard.TOKEN_REFUSED)
        for count in range(100):
            world.now += GRACE_S / 4
            world.watches.elsewhere({("anna", 7): count // 2}, world.now)
            assert [] == world.watches.lapsed(world.now)
        world.now += GRACE_S - 1
        world.watches.elsewhere({("anna", 7): 49}, world.now)
        world.now += 1
        assert [] != world.watches.lapsed(world.now)

    def test_without_their_word_nobody_is_ended(self) -> None:
        """Before they could be asked, nothing is known; from then on it runs."""
        world = World(asks_others=True)
        world.answer(Heard.TOKEN_REFUSED)
        world.now += 100 * GRACE_S
        assert [] == world.watches.lapsed(world.now)
        world.watches.elsewhere({("anna", 7): 0}, world.now)
        assert [] == world.watches.lapsed(world.now + GRACE_S - 1)
        assert 1 == len(world.watches.lapsed(world.now + GRACE_S))


class TestAddresses:
    """An instance that is somewhere else."""

    def test_tunnels_to_the_old_address_end(self) -> None:
        """Those of all users, at once, with their grants; those to the new one stay."""
        world = World()
        world.answer(Heard.OWNER, "10.0.0.9")
        assert [
            EndTunnels(
                instance_id=7, not_host="10.0.0.9", code=1001, reason="instance moved", forget_grants=True
            )
        ] == world.endings
        world.answer(Heard.OWNER, "10.0.0.9")
        assert 1 == len(world.endings)

    def test_no_address_says_nothing(self) -> None:
        """While it is rebuilt, say."""
        world = World()
        world.answer(Heard.OWNER, None)
        world.answer(Heard.OWNER)
        assert [] == world.endings

    def test_tunnels_to_two_addresses_are_sorted_out_soon(self) -> None:
        """Workers disagree: the API is asked at once, and what leads elsewhere ends."""
        world = World()
        world.answer(Heard.OWNER)
        world.now += 1
        world.watches.held(2, held(host="10.0.0.9"), world.now)
        assert 0 == world.until_next()
        world.now += 1
        world.answer(Heard.OWNER, "10.0.0.9")
        assert ["10.0.0.9"] == [one.not_host for one in world.endings]

    def test_an_answer_that_is_older_than_a_tunnel_does_not_end_it(self) -> None:
        """What a worker learned meanwhile is newer."""
        world = World()
        watch = world.watch()
        world.now += 1
        world.watches.held(1, held(host="10.0.0.9"), world.now)
        assert [] == world.watches.answered(watch, Told(Heard.OWNER, HOST), world.now)

    def test_what_a_worker_was_told_counts(self) -> None:
        """A request's own question says where the instance is, and that its user owns it."""
        world = World()
        world.answer(Heard.OWNER)
        world.now += 30
        (ending,) = world.watches.accepted("anna", 7, Told(Heard.OWNER, "10.0.0.9"), world.now)
        assert "10.0.0.9" == ending.not_host
        assert RECHECK == world.until_next()

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:DB8::0001", "2001:db8::1"),
            (None, None),
            ("", None),
            ("instance-7.example.org", None),
            ("10.0.0.7:8888", None),
        ],
    )
    def test_an_address_is_written_as_workers_write_it(self, host: str | None, expected: str | None) -> None:
        """Otherwise each answer would end every tunnel."""
        assert expected == told_of_owner("ACTIVE", host).address
        assert expected is None or expected == str(ipaddress.ip_address(expected))


class TestAnswers:
    """What an answer means."""

    @pytest.mark.parametrize("state", ["DELETED", "DELETING", "STOPPED"])
    def test_an_instance_that_goes(self, state: str) -> None:
        """Three states are firm."""
        assert Heard.GOING is told_of_owner(state, HOST).heard

    @pytest.mark.parametrize(
        "state",
        [
            *("ACTIVE", "PARTIALLY_ACTIVE", "ACTIVE_MIGRATING", "BUILDING", "STARTING", "STOPPING"),
            *("REBOOTING", "MIGRATING", "ERROR", "UNAVAILABLE", "UNKNOWN", "SOMETHING_NEW"),
        ],
    )
    def test_all_other_states_say_nothing(self, state: str) -> None:
        """The tunnels end by themselves, if the instance does."""
        assert Told(Heard.OWNER, HOST) == told_of_member(Access(role="OWNER", state=state, host=HOST))

    @pytest.mark.parametrize("role", ["USER", "GUEST", "SUPPORT", "owner", ""])
    def test_who_is_not_the_owner(self, role: str) -> None:
        """Whatever else they are; and the address is not theirs to know."""
        assert Told(Heard.NOT_OWNER) == told_of_member(Access(role=role, state="DELETED", host=HOST))


class TestWatching:
    """Who is watched, and when who is asked about."""

    def test_from_the_first_tunnel_to_the_last(self) -> None:
        """On whatever workers."""
        world = World()
        world.watches.held(2, held(), world.now)
        world.watches.released(1, "anna", 7)
        world.watches.released(1, "anna", 7)
        assert 1 == len(world.watches)
        world.watches.released(2, "anna", 7)
        world.watches.released(3, "nobody", 7)
        assert (0, None) == (len(world.watches), world.watches.next_at())

    def test_a_worker_that_is_gone_has_none(self) -> None:
        """Those on other workers stay."""
        world = World()
        world.watches.held(2, held(), world.now)
        world.watches.held(1, held("ben", 8), world.now)
        world.watches.lost(1)
        assert (1, 7) == (len(world.watches), world.watch().instance_id)

    def test_an_answer_for_who_has_left_changes_nothing(self) -> None:
        """Nor for who has come back meanwhile: that is somebody else's question."""
        world = World()
        watch = world.watch()
        world.watches.released(1, "anna", 7)
        world.watches.held(1, held(), world.now)
        assert [] == world.watches.answered(watch, Told(Heard.NOT_OWNER), world.now)
        assert Standing.GOOD is world.watch().standing

    def test_a_question_at_a_time(self) -> None:
        """Who is being asked about is not due, whatever comes meanwhile; after the answer, as it says."""
        world = World()
        watch = world.watch()
        world.watches.accepted("anna", 7, Told(Heard.OWNER, HOST), world.now)
        world.watches.held(2, held(host="10.0.0.9"), world.now)
        assert [] == world.watches.due(world.now + 10 * RECHECK, 10)
        world.watches.answered(watch, Told(Heard.NOT_OWNER), world.now)
        assert CONFIRM == world.until_next()

    def test_a_question_that_comes_to_no_end_is_asked_again(self) -> None:
        """Soon; nothing is concluded."""
        world = World()
        world.watches.broken_off(world.watch(), world.now)
        assert CONFIRM == world.until_next()
        assert Standing.GOOD is world.watches.due(world.now + CONFIRM, 1)[0].standing

    def test_nobody_puts_off_the_question_that_is_to_confirm(self) -> None:
        """By having tokens accepted for another instance, again and again."""
        world = World()
        world.answer(Heard.NOT_OWNER)
        for _ in range(100):
            world.now += CONFIRM / 100
            world.hear(Heard.TOKEN_ACCEPTED)
        assert pytest.approx(0, abs=1e-6) == world.until_next()

    def test_who_works_is_not_asked_about(self) -> None:
        """Their requests are answered by the API each minute, and say the same."""
        world = World()
        world.answer(Heard.OWNER)
        for _ in range(100):
            world.now += RECHECK - 1
            world.watches.accepted("anna", 7, Told(Heard.OWNER, HOST), world.now)
            assert [] == world.watches.due(world.now, 10)

    def test_users_are_kept_apart(self) -> None:
        """And so are the instances of one."""
        world = World()
        world.watches.held(1, held("ben", 7), world.now)
        world.watches.held(1, held("anna", 9), world.now)
        for _ in range(2):
            for watch in world.watches.due(world.now, 10):
                heard = Heard.NOT_OWNER if watch.key == ("anna", 9) else Heard.OWNER
                world.endings += world.watches.answered(watch, Told(heard, HOST), world.now)
            world.now += CONFIRM
        assert [("anna", 9)] == [(one.user, one.instance_id) for one in world.endings]

    def test_questions_are_spread(self) -> None:
        """Those who came at once are asked about all over the first period, and drift apart after it."""
        chance = random.Random(7)
        watches = Watches(recheck_s=60.0, grace_s=600.0, asks_others=False, jitter=chance.random)
        for number in range(6000):
            watches.held(1, held(f"user-{number}", number), 0.0)
        seconds: Counter[int] = Counter()
        for second in range(1, 601):
            for watch in watches.due(float(second), 10_000):
                watches.answered(watch, Told(Heard.OWNER, HOST), float(second))
                seconds[second] += 1
        assert 240 > max(seconds.values())
        assert 60 < min(seconds.values())
        assert 6000 * 10 <= seconds.total() <= 6000 * 13

    def test_only_so_many_as_are_wanted(self) -> None:
        """The longest overdue first."""
        watches = Watches(recheck_s=60.0, grace_s=600.0, asks_others=False, jitter=lambda: 0.0)
        for number in range(10):
            watches.held(1, held(f"user-{number}"), float(number))
        assert ["user-0", "user-1", "user-2"] == [one.user for one in watches.due(100.0, 3)]
        assert ["user-3"] == [one.user for one in watches.due(100.0, 1)]

    @pytest.mark.parametrize(("recheck", "confirm"), [(1.0, 0.1), (10.0, 1.0), (60.0, 5.0), (3600.0, 5.0)])
    def test_a_firm_answer_ends_within_two_periods(self, recheck: float, confirm: float) -> None:
        """A period until the first, a tenth of it, and 5 s at most, until the second."""
        watches = Watches(recheck_s=recheck, grace_s=600.0, asks_others=False, jitter=lambda: 1.0)
        watches.held(1, held(), 0.0)
        for at in (recheck, recheck + confirm):
            assert at == pytest.approx(watches.next_at())
            (watch,) = watches.due(at + 1e-6, 1)
            endings = watches.answered(watch, Told(Heard.NOT_OWNER), at)
        assert [REVOKED] == [(one.code, one.reason) for one in endings]

    def test_another_period(self) -> None:
        """From now on: everybody is asked about within the new one."""
        watches = Watches(recheck_s=3600.0, grace_s=600.0, asks_others=False, jitter=random.Random(7).random)
        for number in range(100):
            watches.held(1, held(f"user-{number}"), 0.0)
        (under_way, *_) = watches.due(3600.0, 1)
        watches.reload(10.0, 20.0, 3600.0)
        assert 99 == len({one.user for one in watches.due(3610.0, 1000)})
        watches.answered(under_way, Told(Heard.TOKEN_REFUSED), 3610.0)
        assert [] == watches.lapsed(3629.0)
        assert [under_way.key] == [(one.user, one.instance_id) for one in watches.lapsed(3630.0)]

    def test_none_at_all(self) -> None:
        """With a period of 0 nobody is asked about, and nothing is concluded, until there is one again."""
        world = World()
        world.answer(Heard.TOKEN_REFUSED)
        world.now += 10 * GRACE_S
        watch = world.watch()
        world.watches.reload(0.0, GRACE_S, world.now)
        assert (None, 0, 1) == (world.watches.next_at(), world.watches.watched, len(world.watches))
        assert [] == world.watches.lapsed(world.now)
        assert [] == world.watches.accepted("anna", 7, Told(Heard.GOING, "10.0.0.9"), world.now)
        assert [] == world.watches.answered(watch, Told(Heard.NOT_OWNER), world.now)
        world.watches.reload(RECHECK, GRACE_S, world.now)
        assert 1 == world.watches.watched
        world.answer(Heard.NOT_OWNER)
        world.answer(Heard.NOT_OWNER)
        assert [REVOKED] == world.ends()

    def test_no_token_is_shown(self) -> None:
        """Not in whatever is logged."""
        world = World()
        assert "T1" not in repr(world.watch())
        assert "T1" not in repr(held())
        assert "Watches(1, doubted=0)" == repr(world.watches)
