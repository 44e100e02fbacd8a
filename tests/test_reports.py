"""Reports to the VISA API: what is due, in which order, and what an answer means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sessions import TOKEN, Clock, key
from support.visa_api import Answer, Hold, VisaApiServer
from visa_jupyter_proxy.control.journal.records import Kind, ReportState
from visa_jupyter_proxy.control.reports import Delivery, Outbox, Report
from visa_jupyter_proxy.visa_api import VisaApi


def report(
    number: int, kind: Kind = "open", *, session: int = 1, token: str | None = TOKEN, blocked: bool = False
) -> Report:
    """Give a report; its id and its place in the journal are `number`."""
    return Report(f"r{number}", kind, key(session), token, 0.0, number, blocked)


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


class Talk:
    """A delivery, the API it talks to, and what was settled."""

    def __init__(self, server: VisaApiServer, api: VisaApi) -> None:
        self.server = server
        self.clock = Clock()
        self.outbox = Outbox()
        self.settled: list[tuple[str, ReportState, int]] = []
        self.delivery = Delivery(api, self.outbox, self._settled, monotonic=self.clock, jitter=lambda: 1.0)

    def _settled(self, one: Report, state: ReportState) -> None:
        self.settled.append((one.id, state, one.attempts))

    async def deliver(self, *reports: Report, after: float = 0.0) -> None:
        """Add reports, let time pass, send what is due."""
        for one in reports:
            self.outbox.put(one)
        self.clock.now += after
        await self.delivery.deliver()


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


def key_of(session: int) -> tuple[int, str, str]:
    """Give the key as the API knows it."""
    return 7, f"kernel-{session}", f"session-{session}"
