"""Reports to the VISA API: what is due, in which order, and what an answer means."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.costs import instructions
from support.delivering import deliver
from support.sessions import TOKEN, Clock, key
from support.visa_api import Answer, Hold, VisaApiServer
from visa_jupyter_proxy.circuit import PER_SECOND, Circuit, Pace
from visa_jupyter_proxy.control.journal.records import Kind, ReportState
from visa_jupyter_proxy.control.outbox import Outbox, Report
from visa_jupyter_proxy.control.reports import Delivery
from visa_jupyter_proxy.control.tokens import OPAQUE_PATIENCE_S, PATIENCE_S, Tokens, holder
from visa_jupyter_proxy.errors import VisaUnreachable
from visa_jupyter_proxy.mailbox import OPAQUE, NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi


def report(
    number: int,
    kind: Kind = "open",
    *,
    session: int = 1,
    user: str = "anna",
    token: str | None = TOKEN,
    blocked: bool = False,
) -> Report:
    """Give a report; its id and its place in the journal are `number`."""
    return Report(f"r{number}", kind, key(session), user, token, number, blocked)


def ids(reports: list[Report]) -> list[str]:
    """Give their ids."""
    return [one.id for one in reports]


class TestOutbox:
    """What is due."""

    def test_reports_of_one_session_wait_for_each_other(self) -> None:
        """The next is due when the one before is settled."""
        outbox = Outbox()
        first, second = report(1), report(2, "close")
        outbox.put(first)
        outbox.put(second)
        assert [first] == outbox.due(0.0)
        assert [] == outbox.due(1e9)
        outbox.settled(first)
        assert [second] == outbox.due(0.0)
        outbox.settled(second)
        assert 0 == len(outbox)
        assert outbox.next_at() is None

    def test_sessions_do_not_wait_for_each_other(self) -> None:
        """One that fails holds up only its own."""
        outbox = Outbox()
        for number in range(3):
            outbox.put(report(number, session=number))
        due = outbox.due(0.0)
        assert ["r0", "r1", "r2"] == ids(due)
        outbox.failed(due[0], 0.0, 1.0)
        outbox.put(report(3, session=0))
        outbox.put(report(4, session=4))
        assert ["r4"] == ids(outbox.due(0.5))

    def test_instances_take_turns(self) -> None:
        """Somebody whose instance says that it opens thousands of kernels holds up no session of others."""
        outbox = Outbox(concurrent=1000)
        for number in range(500):
            outbox.put(Report(f"evil{number}", "open", key(number, instance=1), "eve", TOKEN, number))
        for number in range(2):
            outbox.put(Report(f"anna{number}", "open", key(number, instance=2), "anna", TOKEN, 500 + number))
        outbox.put(Report("ben", "open", key(1, instance=3), "ben", TOKEN, 502))
        assert ["evil0", "anna0", "ben", "evil1", "anna1", "evil2"] == ids(outbox.due(0.0, most=6))
        assert 0.0 == outbox.next_at()
        assert 497 == len(outbox.due(0.0))
        assert outbox.next_at() is None

    def test_who_was_due_and_is_not_any_more_is_passed_over(self) -> None:
        """What is blocked meanwhile, or was forgotten, is not sent."""
        outbox = Outbox(concurrent=1)
        first, second = report(1, session=1), report(2, session=2)
        outbox.put(first)
        outbox.put(second)
        assert [first] == outbox.due(0.0)
        outbox.forget()
        outbox.settled(first)
        assert ([], None, 0) == (outbox.due(0.0), outbox.next_at(), len(outbox))

    def test_one_instance_has_a_part_of_the_room(self) -> None:
        """What it has too much of is left out; the others have theirs."""
        outbox = Outbox(largest=10, largest_of_an_instance=3)
        assert [True] * 3 + [False] == [
            outbox.put(Report(f"{n}", "open", key(n, instance=1), "eve", TOKEN, n)) for n in range(4)
        ]
        assert outbox.put(Report("a", "open", key(1, instance=2), "anna", TOKEN, 9))
        (first, _) = outbox.due(0.0, most=2)
        outbox.settled(first)
        assert outbox.put(Report("4", "open", key(4, instance=1), "eve", TOKEN, 10))
        outbox.forget()
        assert outbox.put(Report("5", "open", key(5, instance=1), "eve", TOKEN, 11))

    def test_no_more_are_under_way_than_allowed(self) -> None:
        """The rest follows as places become free."""
        outbox = Outbox(concurrent=2)
        for number in range(5):
            outbox.put(report(number, session=number))
        first = outbox.due(0.0)
        assert ["r0", "r1"] == ids(first)
        assert outbox.next_at() is None
        outbox.settled(first[0])
        assert ["r2"] == ids(outbox.due(0.0))

    def test_back_off_doubles_up_to_a_minute(self) -> None:
        """With full jitter: the random number says how much of it."""
        outbox, now, delays = Outbox(), 0.0, []
        outbox.put(report(1))
        for _ in range(9):
            (due,) = outbox.due(now)
            outbox.failed(due, now, 1.0)
            at = outbox.next_at()
            assert at is not None
            assert [] == outbox.due(at - 0.001)
            delays.append(at - now)
            now = at
        assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == delays
        (due,) = outbox.due(now)
        outbox.failed(due, now, 0.25)
        assert now + 15 == outbox.next_at()

    def test_a_blocked_report_holds_back_its_session_until_unblocked(self) -> None:
        """It waits for another owner's, which only the journal knows."""
        outbox = Outbox()
        outbox.put(report(5, blocked=True))
        outbox.put(report(6, session=2, blocked=True))
        assert [] == outbox.due(1e9)
        outbox.unblock(["r6"])
        assert ["r6"] == outbox.blocked()
        assert ["r5"] == ids(outbox.due(0.0))

    def test_a_heartbeat_costs_the_same_however_many_reports_wait(self) -> None:
        """It asks what is blocked, unblocks some, and is asked how old the oldest is; an outage may last."""

        def cost(reports: int) -> int:
            outbox = Outbox()
            outbox.put(report(0, session=0, blocked=True))
            for number in range(1, reports):
                outbox.put(report(number, session=number))

            def look() -> None:
                outbox.unblock(outbox.blocked())
                assert reports - 1 == outbox.deliverable
                assert 0.0 == outbox.oldest_since

            return instructions(look)

        assert cost(10) == cost(1000)

    def test_the_oldest_is_the_first_that_came_of_those_that_wait(self) -> None:
        """Whatever its place among those of its session."""
        outbox = Outbox()
        for since, one in enumerate([report(1), report(2, session=2), report(3)], 5):
            one.since = since
            outbox.put(one)
        (first, _) = outbox.due(0.0)
        assert 5 == outbox.oldest_since
        outbox.settled(first)
        assert 6 == outbox.oldest_since
        outbox.forget()
        assert 6 == outbox.oldest_since

    def test_an_adopted_report_takes_its_place_by_number(self) -> None:
        """Behind what is older or under way, before what is younger or has no number yet."""
        outbox = Outbox()
        under_way, unwritten = report(5), report(0)
        unwritten.number = None
        outbox.put(under_way)
        outbox.due(0.0)
        for one in (report(9), unwritten):
            outbox.put(one)
        for number in (7, 3):
            outbox.put(report(number), adopted=True)
        order = []
        outbox.settled(under_way)
        while due := outbox.due(0.0):
            order += ids(due)
            outbox.settled(due[0])
        assert ["r3", "r7", "r9", "r0"] == order

    def test_too_many_are_refused(self) -> None:
        """Memory is bounded."""
        outbox = Outbox(largest=1)
        assert outbox.put(report(1))
        assert not outbox.put(report(2))
        assert 1 == len(outbox)

    def test_what_another_owner_took_over_is_forgotten_except_what_is_under_way(self) -> None:
        """That holds back what comes after it, until it comes back."""
        outbox = Outbox()
        outbox.put(report(1))
        outbox.put(report(2, session=2))
        (first, _) = outbox.due(0.0)
        outbox.put(report(3))
        outbox.forget()
        assert 2 == len(outbox)
        outbox.put(report(4))
        outbox.settled(first)
        assert ["r4"] == ids(outbox.due(0.0))

    def test_what_another_owner_took_over_is_not_sent_again(self) -> None:
        """An attempt that was under way then, and fails, is not repeated: the other may have gone on."""
        outbox = Outbox()
        outbox.put(report(1))
        outbox.put(report(2, session=2))
        (first, second) = outbox.due(0.0)
        outbox.forget()
        outbox.failed(first, 0.0, 1.0)
        outbox.broken_off(second)
        assert 0 == len(outbox)
        assert [] == outbox.due(1e9)

    def test_a_new_token_lets_the_opens_go_that_wait_for_one(self) -> None:
        """Those of its user, and only those whose token was refused."""
        outbox = Outbox()
        for number in range(4):
            outbox.put(report(number, session=number))
        anna, bert, unlucky, _ = outbox.due(0.0)
        bert.user = "bert"
        for one in (anna, bert):
            outbox.refused(one, 0.0, 1.0)
        outbox.failed(unlucky, 0.0, 1.0)
        outbox.renew("anna")
        assert [anna] == outbox.due(0.0)
        assert [bert, unlucky] == outbox.due(1.0)
        outbox.renew("nobody")

    def test_hurry_forgets_the_back_off(self) -> None:
        """The last chance before the process ends."""
        outbox = Outbox()
        outbox.put(report(1))
        (due,) = outbox.due(0.0)
        outbox.failed(due, 0.0, 1.0)
        assert [] == outbox.due(0.5)
        outbox.hurry()
        assert [due] == outbox.due(0.5)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "due", "settle", "fail", "break off"]),
                st.integers(0, 3),
                st.floats(0, 1),
            )
        )
    )
    def test_order_and_bounds_hold_whatever_happens(self, actions: list[tuple[str, int, float]]) -> None:
        """Per session in order, one at a time; never too many; none is lost, none is due twice."""
        outbox = Outbox(concurrent=2)
        now, number = 0.0, 0
        under_way: list[Report] = []
        waiting: dict[int, list[str]] = {session: [] for session in range(4)}
        for action, session, chance in actions:
            now += chance
            if action == "put":
                number += 1
                outbox.put(report(number, session=session))
                waiting[session].append(f"r{number}")
            elif action == "due":
                under_way += outbox.due(now)
            elif under_way:
                one = under_way.pop(session % len(under_way))
                if action == "settle":
                    outbox.settled(one)
                    mine = waiting[int(one.key.kernel_id.removeprefix("kernel-"))]
                    assert one.id == mine.pop(0)
                elif action == "fail":
                    outbox.failed(one, now, chance)
                else:
                    outbox.broken_off(one)
            assert 2 >= len(under_way)
            assert len(under_way) == len({one.key for one in under_way})
            assert sum(map(len, waiting.values())) == len(outbox)
        self._drain(outbox, under_way)

    @staticmethod
    def _drain(outbox: Outbox, under_way: list[Report]) -> None:
        while under_way or len(outbox):
            for one in under_way:
                outbox.settled(one)
            under_way = outbox.due(1e9)
            assert under_way or not len(outbox)


class TestCircuit:
    """Whether the API is asked at all."""

    def fail(self, circuit: Circuit[NotebookKey], sessions: int, now: float = 0.0) -> None:
        """Have the reports of so many sessions fail, one after the other."""
        for number in range(sessions):
            circuit.failed(key(number), now, probe=circuit.begins())

    def test_it_opens_when_the_reports_of_several_sessions_fail(self) -> None:
        """Five without a success between; then nothing passes."""
        circuit = Circuit[NotebookKey](lambda: 1.0)
        self.fail(circuit, 4)
        circuit.worked()
        self.fail(circuit, 4)
        assert circuit.allows(0.0) is None
        circuit.failed(key(9), 0.0, probe=False)
        assert 0 == circuit.allows(0.9)

    def test_one_session_whose_reports_always_fail_holds_up_no_other(self) -> None:
        """Whatever is wrong with it."""
        circuit = Circuit[NotebookKey](lambda: 1.0)
        for _ in range(100):
            circuit.failed(key(1), 0.0, probe=False)
        assert circuit.allows(0.0) is None

    def test_one_probe_at_a_time_less_and_less_often(self) -> None:
        """Exponential with full jitter, up to a minute; what began before it opened says nothing new."""
        circuit, now, delays = Circuit[NotebookKey](lambda: 1.0), 0.0, []
        self.fail(circuit, 5)
        for _ in range(8):
            at = circuit.next_at()
            assert at is not None
            delays.append(at - now)
            now = at
            assert 1 == circuit.allows(now)
            assert circuit.begins()
            assert 0 == circuit.allows(now)
            assert circuit.next_at() is None
            circuit.failed(key(7), now, probe=False)
            assert circuit.next_at() is None
            circuit.failed(key(7), now, probe=True)
        assert [1, 2, 4, 8, 16, 32, 60, 60] == delays

    def test_a_probe_that_works_closes_it(self) -> None:
        """And one that is broken off is followed by another."""
        circuit = Circuit[NotebookKey](lambda: 0.0)
        self.fail(circuit, 5)
        assert 0 == circuit.allows(0.0)
        circuit.hurry()
        assert circuit.begins()
        circuit.broken_off(probe=True)
        assert 1 == circuit.allows(0.0)
        circuit.begins()
        circuit.worked()
        assert circuit.allows(0.0) is None
        assert not circuit.is_open

    def test_the_pace_is_so_many_a_second(self) -> None:
        """As many at once after a rest, and no more for the rest."""
        pace = Pace(10)
        begun: list[float] = []
        now = 100.0
        while len(begun) < 50:
            if pace.allows(now):
                pace.begins()
                begun.append(now)
            else:
                now = pace.next_at(now)
        assert 10 == begun.count(100.0)
        assert 104.0 == pytest.approx(begun[-1])


class TestTokens:
    """The newest of each user."""

    def test_the_newest_is_kept_for_an_hour(self) -> None:
        """Whoever is seen again has it longer."""
        clock = Clock()
        tokens = Tokens(clock)
        assert tokens.accepted("anna", "a1")
        assert not tokens.accepted("anna", "a1")
        clock.now = PATIENCE_S / 2
        assert tokens.accepted("anna", "a2")
        assert tokens.accepted("bert", "b1")
        assert ("a2", "b1", None) == tuple(map(tokens.newest, ("anna", "bert", "cleo")))
        clock.now = PATIENCE_S
        assert not tokens.accepted("bert", "b1")
        clock.now = 1.5 * PATIENCE_S
        assert (None, "b1") == (tokens.newest("anna"), tokens.newest("bert"))

    def test_memory_is_bounded_and_nothing_is_shown(self) -> None:
        """The users who were not seen for longest go."""
        tokens = Tokens(Clock(), most=2)
        for user in ("anna", "bert", "anna", "cleo"):
            tokens.accepted(user, f"secret of {user}")
        assert [None, "secret of anna"] == [tokens.newest("bert"), tokens.newest("anna")]
        assert "secret" not in repr(tokens)

    def test_what_is_old_does_not_stay(self) -> None:
        """An hour later it is gone, when somebody else comes."""
        clock = Clock()
        tokens = Tokens(clock)
        tokens.accepted("anna", "a")
        clock.now = PATIENCE_S
        tokens.accepted("bert", "b")
        assert "Tokens(1)" == repr(tokens)


class Talk:
    """A delivery, the API it talks to, and what was settled."""

    def __init__(self, server: VisaApiServer, api: VisaApi) -> None:
        self.server = server
        self.clock = Clock()
        self.outbox = Outbox()
        self.settled: list[tuple[str, ReportState, int]] = []
        self.tokens = Tokens(self.clock)
        self.trusted = True
        self.delivery = Delivery(
            api,
            self.outbox,
            self.tokens,
            self._settled,
            may_send=lambda: self.trusted,
            monotonic=self.clock,
            jitter=lambda: 1.0,
        )

    def _settled(self, one: Report, state: ReportState) -> None:
        self.settled.append((one.id, state, one.attempts))

    async def deliver(self, *reports: Report, after: float = 0.0) -> None:
        """Add reports, let time pass, send what is due."""
        for one in reports:
            self.outbox.put(one)
        self.clock.now += after
        await deliver(self.delivery)


@asynccontextmanager
async def talk(*, timeout_s: float = 30) -> AsyncIterator[Talk]:
    """Serve a VISA API and a delivery that talks to it."""
    async with VisaApiServer() as server:
        server.user(TOKEN, "anna")
        server.instance(7, owner="anna")
        api = VisaApi(server.url, ca_file=None, timeout_s=timeout_s)
        try:
            yield Talk(server, api)
        finally:
            await api.close()


class TestDelivery:
    """What an answer means."""

    def test_a_confirmed_report_is_delivered(self) -> None:
        """A 200, and nothing else."""

        async def main() -> None:
            async with talk() as to:
                await to.deliver(report(1), report(2, "close", token=None))
                assert [
                    ("r1", ReportState.DELIVERED, 1),
                    ("r2", ReportState.DELIVERED, 1),
                ] == to.settled
                assert [("open", TOKEN), ("close", None)] == [
                    (request.endpoint, request.token) for request in to.server.requests
                ]
                assert b'{"kernelId":"kernel-1","sessionId":"session-1"}' == to.server.requests[0].body

        asyncio.run(main())

    @pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 408, 422, 429, 500, 503])
    def test_a_close_is_tried_until_it_is_confirmed(self, status: int) -> None:
        """Whatever else the API says."""

        async def main() -> None:
            async with talk() as to:
                to.server.script("close", Answer(status), Answer(status))
                await to.deliver(report(1, "close"))
                await to.deliver(after=1)
                assert [] == to.settled
                await to.deliver(after=2)
                assert [("r1", ReportState.DELIVERED, 3)] == to.settled

        asyncio.run(main())

    @pytest.mark.parametrize(
        "answer",
        [Answer(reset=True), Answer(reset=True, obey=True), Answer(raw=b"garbage\r\n\r\n"), Answer(raw=b"")],
    )
    def test_a_broken_answer_is_no_confirmation(self, answer: Answer) -> None:
        """The report is sent again, also when it may have arrived."""

        async def main() -> None:
            async with talk() as to:
                to.server.script("open", answer)
                await to.deliver(report(1))
                assert [] == to.settled
                await to.deliver(after=1)
                assert [("r1", ReportState.DELIVERED, 2)] == to.settled
                assert [key_of(1)] == to.server.active()

        asyncio.run(main())

    def test_an_api_that_is_down_is_asked_again(self) -> None:
        """On the same port, when it is back."""

        async def main() -> None:
            async with talk() as to:
                to.server.down()
                await to.deliver(report(1))
                assert [] == to.server.requests
                to.server.up()
                await to.deliver(after=1)
                assert [("r1", ReportState.DELIVERED, 2)] == to.settled

        asyncio.run(main())

    def test_an_api_that_hangs_is_left_after_the_time_out(self) -> None:
        """And asked again."""

        async def main() -> None:
            async with talk(timeout_s=0.2) as to:
                to.server.script("close", Answer(hold=Hold()))
                await to.deliver(report(1, "close"))
                assert [] == to.settled
                assert 1 == len(to.server.requests)

        asyncio.run(main())

    @pytest.mark.parametrize("status", [403, 404])
    def test_an_open_of_somebody_else_s_instance_is_refused(self, status: int) -> None:
        """That is firm; the session's close is sent all the same, and does no harm."""

        async def main() -> None:
            async with talk() as to:
                to.server.script("open", Answer(status))
                await to.deliver(report(1), report(2, "close"))
                assert [
                    ("r1", ReportState.REFUSED, 0),
                    ("r2", ReportState.DELIVERED, 1),
                ] == to.settled

        asyncio.run(main())

    def test_an_open_whose_token_is_refused_is_tried_for_an_hour(self) -> None:
        """One 401 can be transient; a token that stays refused is given up."""

        async def main() -> None:
            async with talk() as to:
                to.server.users.clear()
                await to.deliver(report(1))
                await to.deliver(after=3598)
                assert [] == to.settled
                await to.deliver(after=2)
                assert [("r1", ReportState.NOT_DELIVERED)] == [one[:2] for one in to.settled]

        asyncio.run(main())

    def test_an_open_without_a_token_is_not_delivered(self) -> None:
        """Nobody is asked; the close follows at once."""

        async def main() -> None:
            async with talk() as to:
                await to.deliver(report(1, token=None), report(2, "close"))
                assert [ReportState.NOT_DELIVERED, ReportState.DELIVERED] == [one[1] for one in to.settled]
                assert ["close"] == [request.endpoint for request in to.server.requests]

        asyncio.run(main())

    def test_the_newest_token_of_the_same_user_is_used(self) -> None:
        """Also when the API was down for so long that the session's own has expired."""

        async def main() -> None:
            async with talk() as to:
                to.server.users = {"newer": "anna", "of another": "bert"}
                to.tokens.accepted("anna", "newer")
                to.tokens.accepted("bert", "of another")
                await to.deliver(report(1))
                assert [("r1", ReportState.DELIVERED, 1)] == to.settled
                assert ["newer"] == [request.token for request in to.server.requests]

        asyncio.run(main())

    def test_224_an_open_whose_token_is_refused_goes_with_the_next_one(self) -> None:
        """At once, whatever its back-off is."""

        async def main() -> None:
            async with talk() as to:
                to.server.users = {"newer": "anna"}
                await to.deliver(report(1), report(2, "close"))
                await to.deliver(after=1)
                assert [] == to.settled
                to.tokens.accepted("anna", "newer")
                to.outbox.renew("anna")
                await to.deliver()
                assert [("r1", ReportState.DELIVERED, 3), ("r2", ReportState.DELIVERED, 1)] == to.settled
                assert [TOKEN, TOKEN, "newer", None] == [request.token for request in to.server.requests]

        asyncio.run(main())

    def test_the_hour_of_patience_begins_with_the_first_refusal(self) -> None:
        """Not while the API was down."""

        async def main() -> None:
            async with talk() as to:
                to.server.users.clear()
                to.server.down()
                await to.deliver(report(1))
                await to.deliver(after=2 * PATIENCE_S)
                to.server.up()
                await to.deliver(after=60)
                await to.deliver(after=PATIENCE_S / 2)
                assert [] == to.settled
                await to.deliver(after=PATIENCE_S / 2)
                assert [ReportState.NOT_DELIVERED] == [one[1] for one in to.settled]

        asyncio.run(main())

    def test_an_open_whose_token_says_nothing_of_its_user_is_given_up_soon(self) -> None:
        """None of theirs can follow it, so it holds back for two minutes only what comes after it."""

        async def main() -> None:
            async with talk() as to:
                to.server.users.clear()
                await to.deliver(report(1, user=f"{OPAQUE}0123"), report(2, "close"))
                await to.deliver(after=OPAQUE_PATIENCE_S - 1)
                assert [] == to.settled
                await to.deliver(after=61)
                assert [ReportState.NOT_DELIVERED, ReportState.DELIVERED] == [one[1] for one in to.settled]

        asyncio.run(main())

    def test_it_goes_with_the_next_token_for_the_same_instance(self) -> None:
        """Whosever that is: the API accepts nobody for an instance but its owner."""

        async def main() -> None:
            async with talk() as to:
                to.server.users = {"newer": "anna"}
                await to.deliver(report(1, user=f"{OPAQUE}0123"))
                assert [] == to.settled
                to.tokens.accepted(holder(f"{OPAQUE}4567", 7), "newer")
                to.outbox.renew(holder(f"{OPAQUE}4567", 7))
                await to.deliver()
                assert [("r1", ReportState.DELIVERED, 2)] == to.settled
                assert [TOKEN, "newer"] == [request.token for request in to.server.requests]

        asyncio.run(main())

    def test_nothing_is_sent_while_others_may_take_this_process_for_dead(self) -> None:
        """They may have taken its reports over, and a session may live there."""

        async def main() -> None:
            async with talk() as to:
                to.trusted = False
                await to.deliver(report(1), report(2, "close", session=2))
                assert [] == to.server.requests
                to.trusted = True
                await to.deliver()
                assert 2 == len(to.server.requests)

        asyncio.run(main())

    def test_an_api_that_is_down_is_probed_and_not_hammered(self) -> None:
        """A hundred reports, ten minutes: some dozens of attempts."""

        async def main() -> None:
            async with talk() as to:
                to.server.always("close", Answer(503))
                await to.deliver(*(report(number, "close", session=number) for number in range(100)))
                # One more for each failure that does not open the circuit yet.
                assert 16 <= len(to.server.requests) <= 20
                for _ in range(600):
                    await to.deliver(after=1)
                assert 39 >= len(to.server.requests)

        asyncio.run(main())

    def test_sessions_do_not_wait_for_one_that_hangs(self) -> None:
        """In the background: fifteen others pass it by."""

        async def main() -> None:
            async with talk() as to:
                hold = Hold()
                to.server.script("open", Answer(hold=hold))
                running = asyncio.create_task(to.delivery.run())
                for number in range(40):
                    to.outbox.put(report(number, session=number))
                to.delivery.wake()
                await to.server.until(lambda: 39 == len(to.settled))
                hold.release()
                await to.server.until(lambda: 40 == len(to.settled))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                assert 40 == len(to.server.active())

        asyncio.run(main())

    def test_an_attempt_that_is_broken_off_is_not_settled(self) -> None:
        """The report stays in the outbox, for the journal to keep."""

        async def main() -> None:
            async with talk() as to:
                to.server.always("open", Answer(hold=Hold()))
                running = asyncio.create_task(to.delivery.run())
                to.outbox.put(report(1))
                to.delivery.wake()
                await to.server.until(lambda: to.server.requests)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                assert [] == to.settled
                assert ["r1"] == ids(to.outbox.due(0.0))

        asyncio.run(main())

    def test_trouble_is_logged_once_and_never_with_a_token(self, capsys: pytest.CaptureFixture[str]) -> None:
        """However many reports fail; and when it is over."""

        async def main() -> None:
            async with talk() as to:
                to.server.always("open", Answer(500, body=b"secret answer"))
                await to.deliver(*(report(number, session=number) for number in range(20)))
                to.server.always("open", None)
                await to.deliver(after=1)

        asyncio.run(main())
        out = capsys.readouterr().err
        assert 1 == out.count("cannot be reported")
        assert 1 == out.count("reported to VISA again")
        assert TOKEN not in out
        assert "secret answer" not in out
        assert TOKEN not in repr(report(1))

    def test_an_outage_that_follows_another_at_once_is_warned_of_a_minute_later(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One warning a minute, but for no outage that lasts is there none; each "again" takes one back."""
        heard = []

        async def main() -> None:
            async with talk() as to:
                for number, (status, after) in enumerate(
                    [(200, 10), (503, 10), (200, 5), (503, 5), (200, 5), (503, 20), (503, 120), (200, 60)]
                ):
                    to.server.always("close", None if status == 200 else Answer(status))
                    await to.deliver(report(number, "close", session=number), after=after)
                    out = capsys.readouterr().err
                    heard.append((out.count("cannot be reported"), out.count("reported to VISA again")))

        asyncio.run(main())
        assert [(0, 0), (1, 0), (0, 1), (0, 0), (0, 0), (0, 0), (1, 0), (0, 1)] == heard


def key_of(session: int) -> tuple[int, str, str]:
    """Give the key as the API knows it."""
    return 7, f"kernel-{session}", f"session-{session}"


class Sieve(VisaApi):
    """The contract's close, without sockets: it can be down, and notes when what came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_up = True
        self.asked: list[float] = []
        self.told: dict[NotebookKey, list[tuple[float, str]]] = {}

    async def open_notebook(self, token: str, instance_id: int, kernel_id: str, session_id: str) -> None:  # noqa: ARG002 -- the interface of VisaApi
        """See `VisaApi`."""
        self._tell("open", NotebookKey(instance_id, kernel_id, session_id))

    async def close_notebook(self, instance_id: int, kernel_id: str, session_id: str) -> None:
        """See `VisaApi`."""
        self._tell("close", NotebookKey(instance_id, kernel_id, session_id))

    def _tell(self, what: str, notebook: NotebookKey) -> None:
        self.asked.append(self.clock.now)
        if not self.is_up:
            raise VisaUnreachable("down")
        self.told.setdefault(notebook, []).append((self.clock.now, what))


def test_ten_thousand_closes_while_the_api_is_down_for_ten_minutes() -> None:
    """All are delivered after its return, in order per session, at a bounded rate; till then it has peace."""
    clock, sessions, outage = Clock(), 10_000, 600.0
    api, outbox, settled = Sieve(clock), Outbox(), []
    chance = random.Random(7)
    delivery = Delivery(
        api,
        outbox,
        Tokens(clock),
        lambda one, state: settled.append((one.id, state)),
        may_send=lambda: True,
        monotonic=clock,
        jitter=chance.random,
    )
    closes = iter(sorted((chance.uniform(0, outage), number) for number in range(sessions)))

    async def main() -> None:
        api.is_up = False
        following = next(closes, None)
        while following is not None or len(outbox):
            while following is not None and following[0] <= clock.now:
                outbox.put(report(following[1], "close", session=following[1]))
                if following[1] % 10 == 0:  # the user is back before VISA knows that they were gone
                    outbox.put(report(following[1] + sessions, "open", session=following[1]))
                following = next(closes, None)
            api.is_up = clock.now >= outage
            await deliver(delivery)
            clock.now += 0.1

    asyncio.run(main())
    assert sessions * 11 // 10 == len({one for one, state in settled if state is ReportState.DELIVERED})
    assert len(settled) == sum(map(len, api.told.values()))
    for number in range(sessions):
        expected = ["close", "open"] if number % 10 == 0 else ["close"]
        assert expected == [what for _, what in api.told[key(number)]]
    begun = [at for at in api.asked if at < outage]
    assert 60 > len(begun)
    seconds = Counter(int(at) for at in api.asked)
    assert 2 * PER_SECOND >= max(seconds.values())
    # A minute until the probe, and 110 s for 11 000 at 100 a second.
    assert outage + 60 + 110 + 5 > max(api.asked)
