"""The vigil at work: real questions to an API, over sockets, and what other nodes say through the journal."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import pytest

from support import simulated
from support.sessions import TOKEN, Clock, accepted
from support.storage import Storage
from support.visa_api import Answer, Hold, VisaApiServer
from visa_jupyter_proxy.control.journal import Journal, upkeep
from visa_jupyter_proxy.control.tokens import Tokens
from visa_jupyter_proxy.control.vigil import Vigil
from visa_jupyter_proxy.control.vigil.elsewhere import Elsewhere
from visa_jupyter_proxy.control.vigil.rounds import CONCURRENT, PER_SECOND, Rounds
from visa_jupyter_proxy.control.vigil.watches import Watches
from visa_jupyter_proxy.errors import VisaUnreachable
from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, EndTunnels, TokenAccepted
from visa_jupyter_proxy.visa_api import Access, VisaApi

RECHECK_S: Final = 0.1
HOST: Final = "10.0.0.7"


def held(user: str = "anna", instance_id: int = 7, token: str = TOKEN) -> AccessHeld:
    """Say that there are tunnels of a user to an instance."""
    return AccessHeld(user=user, instance_id=instance_id, host=HOST, token=token)


class Watch:
    """A vigil over an API, and what it has ended."""

    def __init__(
        self, server: VisaApiServer, *, recheck_s: float, grace_s: float, journal: Journal | None
    ) -> None:
        self.server = server
        self.ended: list[EndTunnels] = []
        self.tokens = Tokens(time.monotonic)
        self._api = VisaApi(server.url, ca_file=None, timeout_s=10.0)
        self.vigil = Vigil(
            self._api,
            self.tokens,
            self.ended.append,
            journal=journal,
            recheck_s=recheck_s,
            grace_s=grace_s,
        )
        self.vigil.start()

    def accept(self, message: TokenAccepted) -> None:
        """Be told as control is, when the API has accepted a token."""
        self.tokens.accepted(message.user, message.token)
        self.vigil.token_accepted(message)

    @property
    def questions(self) -> int:
        """How many there were."""
        return len(self.server.asked("account"))

    async def until_asked(self, times: int) -> None:
        """Wait for so many more questions to have come."""
        before = self.questions
        await self.server.until(lambda: self.questions >= before + times)

    def ends(self) -> list[tuple[str | None, int | None, int, str]]:
        """Give whose tunnels were ended, and how."""
        return [(one.user, one.instance_id, one.code, one.reason) for one in self.ended]

    async def stop(self) -> None:
        """End it."""
        await self.vigil.stop()
        await self._api.close()


@asynccontextmanager
async def watching(
    *,
    recheck_s: float = RECHECK_S,
    grace_s: float = 60.0,
    journal: Journal | None = None,
    server: VisaApiServer | None = None,
) -> AsyncIterator[Watch]:
    """Watch over one user with a tunnel to the instance 7, which they own."""
    async with VisaApiServer() as own:
        api = server or own
        api.user(TOKEN, "anna")
        api.instance(7, owner="anna", ip=HOST)
        watch = Watch(api, recheck_s=recheck_s, grace_s=grace_s, journal=journal)
        try:
            watch.vigil.access_held(1, held())
            yield watch
        finally:
            await watch.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own."""

    async def main() -> None:
        await test()

    asyncio.run(main())


class TestQuestions:
    """What is asked, and how often."""

    def test_141_the_one_that_keeps_nothing_alive(self) -> None:
        """Again and again while there are tunnels, with the token; `lastSeenAt` does not move."""

        async def test() -> None:
            async with watching() as watch:
                await watch.until_asked(5)
                assert {TOKEN} == {one.token for one in watch.server.asked("account")}
                assert {"/api/account/instances/7"} == {one.path for one in watch.server.requests}
                assert 0 == watch.server.seen(7)
                assert [] == watch.ended

        run(test)

    def test_with_the_newest_token(self) -> None:
        """Whatever worker has seen it accepted, and for whatever instance."""

        async def test() -> None:
            async with watching() as watch:
                await watch.until_asked(1)
                watch.server.user("newer", "anna")
                watch.accept(accepted("anna", "newer", instance=8))
                watch.accept(accepted("ben", "another", instance=7))
                await watch.until_asked(2)
                assert "newer" == watch.server.asked("account")[-1].token

        run(test)

    def test_not_when_the_last_tunnel_is_over(self) -> None:
        """And not when its worker is gone."""

        async def test() -> None:
            async with watching() as watch:
                watch.vigil.access_held(2, held(instance_id=8))
                await watch.until_asked(4)
                watch.vigil.access_released(1, AccessReleased(user="anna", instance_id=7))
                watch.vigil.worker_lost(2)
                assert 0 == watch.vigil.watched
                watch.vigil.access_held(3, held("ben", 9))
                before = len(watch.server.requests)
                await watch.server.until(
                    lambda: sum("/9" in one.path for one in watch.server.requests[before:]) >= 3
                )
                late = watch.server.requests[before + CONCURRENT :]
                assert {"/api/account/instances/9"} >= {one.path for one in late}

        run(test)

    def test_only_so_many_at_a_time(self) -> None:
        """An API that answers nobody holds so many questions, and no more come."""

        async def test() -> None:
            async with watching() as watch:
                hold = Hold()
                watch.server.always("account", Answer(hold=hold))
                for number in range(100):
                    watch.vigil.access_held(1, held(f"user-{number}", 100 + number))
                await watch.until_asked(CONCURRENT)
                await asyncio.sleep(3 * RECHECK_S)
                assert CONCURRENT == watch.questions
                hold.release()

        run(test)

    def test_only_so_many_a_second(self) -> None:
        """Thousands of users: the period grows, not the number."""

        async def test() -> None:
            async with watching() as watch:
                for number in range(3000):
                    watch.vigil.access_held(1, held(f"user-{number}", 100 + number))
                began = time.monotonic()
                await watch.until_asked(2 * PER_SECOND)
                # As many at once as in a second, after which so many come in each.
                assert 0.95 <= time.monotonic() - began
                asked = [one.path for one in watch.server.asked("account")]
                assert len(asked) - 2 <= len({*asked})  # nobody twice before the others

        run(test)

    def test_an_api_that_is_down_is_not_hammered(self) -> None:
        """After a few failures there are probes; nobody is ended; it goes on when it is back."""

        async def test() -> None:
            async with watching() as watch:
                watch.server.always("account", Answer(status=503))
                for number in range(200):
                    watch.vigil.access_held(1, held(f"user-{number}", 100 + number))
                await watch.server.until(lambda: watch.vigil.is_failing)
                await asyncio.sleep(1.0)
                assert watch.questions <= 5 + CONCURRENT + 5
                assert [] == watch.ended
                watch.server.always("account", None)
                await watch.server.until(lambda: not watch.vigil.is_failing)
                await watch.until_asked(100)

        run(test)


class Flapping:
    """An API that is down when it is told to be."""

    is_down = False

    async def get_access(self, token: str, instance_id: int) -> Access:  # noqa: ARG002 -- all are good
        """See `VisaApi`."""
        if self.is_down:
            raise VisaUnreachable("down")
        return Access(role="OWNER", host=HOST, state="ACTIVE")


class TestWarnings:
    """What the log says of an API that fails, on a simulated clock."""

    def test_an_outage_that_follows_another_at_once_is_warned_of_a_minute_later(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One warning a minute, but for no outage that lasts is there none; each "again" takes one back."""
        api, heard = Flapping(), []

        async def lasts(rounds: Rounds, seconds: float, *, is_down: bool) -> None:
            api.is_down = is_down
            await asyncio.sleep(seconds)
            out = capsys.readouterr().err
            heard.append((rounds.is_failing, out.count("does not say who"), out.count("says again who")))

        async def test() -> None:
            now = asyncio.get_running_loop().time
            watches = Watches(recheck_s=1.0, grace_s=60.0, asks_others=False, jitter=lambda: 0.5)
            watches.held(1, held(), now())
            rounds = Rounds(
                cast("VisaApi", api),
                Tokens(now),
                watches,
                concluded=lambda _: None,
                accepted=lambda *_: None,
                monotonic=now,
                jitter=lambda: 0.5,
            )
            async with asyncio.TaskGroup() as group:
                running = group.create_task(rounds.run())
                await lasts(rounds, 10, is_down=False)
                await lasts(rounds, 10, is_down=True)
                await lasts(rounds, 5, is_down=False)
                await lasts(rounds, 5, is_down=True)
                await lasts(rounds, 5, is_down=False)
                await lasts(rounds, 20, is_down=True)
                await lasts(rounds, 120, is_down=True)
                await lasts(rounds, 5, is_down=False)
                running.cancel()

        simulated.run(test())
        assert [
            (False, 0, 0),
            (True, 1, 0),
            (False, 0, 1),
            (True, 0, 0),
            (False, 0, 0),
            (True, 0, 0),
            (True, 1, 0),
            (False, 0, 1),
        ] == heard


class TestConclusions:
    """What follows from the answers."""

    def test_170_who_is_not_the_owner_any_more(self) -> None:
        """Two answers that agree end the tunnels with 1008."""

        async def test() -> None:
            async with watching() as watch:
                await watch.until_asked(1)
                watch.server.member(7, "anna", "USER")
                await watch.server.until(lambda: watch.ended)
                assert [("anna", 7, 1008, "access revoked")] == watch.ends()[:1]
                assert watch.ended[0].forget_grants

        run(test)

    @pytest.mark.parametrize("status", [403, 404])
    def test_170_a_single_refusal_is_none(self, status: int) -> None:
        """One that the next answer does not confirm."""

        async def test() -> None:
            async with watching() as watch:
                await watch.until_asked(1)
                for _ in range(3):
                    watch.server.script("account", Answer(status=status))
                    await watch.until_asked(3)
                assert [] == watch.ended
                watch.server.script("account", Answer(status=status), Answer(status=status))
                await watch.server.until(lambda: watch.ended)

        run(test)

    @pytest.mark.parametrize("state", ["DELETED", "DELETING", "STOPPED"])
    def test_170_an_instance_that_is_going(self, state: str) -> None:
        """The same with 1001."""

        async def test() -> None:
            async with watching() as watch:
                watch.server.instance(7, owner="anna", ip=HOST, state=state)
                await watch.server.until(lambda: watch.ended)
                assert ("anna", 7, 1001, "instance stopped or deleted") == watch.ends()[0]

        run(test)

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(status=500),
            Answer(status=502),
            Answer(status=302),
            Answer(reset=True),
            Answer(raw=b"SSH-2.0-what\r\n"),
            Answer(status=200, body=b"{}"),
            Answer(status=200, body=b'{"data": {"id": 7}}'),
            Answer(status=200, body=b'{"data": {"id": 7, "membership": {}}}'),
            Answer(status=200, body=b'{"data": {"id": 8, "membership": {"role": "USER"}}}'),
        ],
        ids=str,
    )
    def test_170_what_is_no_answer_says_nothing(self, answer: Answer) -> None:
        """However often; and it shows."""

        async def test() -> None:
            async with watching() as watch:
                watch.server.always("account", answer)
                await watch.until_asked(4)
                assert watch.vigil.is_failing
                assert ([], 0) == (watch.ended, watch.vigil.doubted)

        run(test)

    def test_170_another_address(self) -> None:
        """Tunnels to the old one end, those of all users."""

        async def test() -> None:
            async with watching() as watch:
                await watch.until_asked(1)
                watch.server.instance(7, owner="anna", ip="10.0.0.9")
                await watch.server.until(lambda: watch.ended)
                await watch.until_asked(2)
                assert [(None, 7, 1001, "instance moved")] == watch.ends()
                assert "10.0.0.9" == watch.ended[0].not_host

        run(test)

    def test_170_a_token_that_is_refused_for_good(self) -> None:
        """The grace runs, then the tunnels end; not before."""

        async def test() -> None:
            async with watching(grace_s=1.0) as watch:
                await watch.until_asked(1)
                del watch.server.users[TOKEN]
                await watch.server.until(lambda: watch.vigil.doubted)
                began = time.monotonic()
                await watch.server.until(lambda: watch.ended)
                assert 0.9 <= time.monotonic() - began
                assert [("anna", 7, 1008, "not signed in any more")] == watch.ends()

        run(test)

    def test_170_tokens_that_rotate(self) -> None:
        """Each is refused before the next comes, for longer than the grace: nothing ends."""

        async def test() -> None:
            async with watching(grace_s=1.0) as watch:
                until = time.monotonic() + 2.0
                number = 0
                while time.monotonic() < until:
                    watch.server.users.clear()
                    await watch.server.until(lambda: watch.vigil.doubted)
                    number += 1
                    watch.server.user(f"T{number}", "anna")
                    watch.accept(accepted("anna", f"T{number}", instance=8))
                    await watch.server.until(lambda: not watch.vigil.doubted)
                assert 3 < number
                assert [] == watch.ended

        run(test)

    def test_170_a_refusal_that_a_newer_token_has_overtaken(self) -> None:
        """It says nothing of the newer one: no grace begins."""

        async def test() -> None:
            async with watching() as watch:
                hold = Hold()
                watch.server.script("account", Answer(status=401, hold=hold))
                await watch.until_asked(1)
                watch.server.user("newer", "anna")
                watch.accept(accepted("anna", "newer", instance=8))
                hold.release()
                await watch.until_asked(1)
                assert 0 == watch.vigil.doubted

        run(test)


class TestOtherNodes:
    """What another node has accepted, on each kind of journal."""

    def test_a_user_who_works_elsewhere_stays(self, storage: Storage) -> None:
        """While the other node sees tokens accepted; when it does so no more, the grace comes to its end."""

        async def test() -> None:
            async with (
                VisaApiServer() as server,
                watching(grace_s=1.0, journal=storage.journal(), server=server) as here,
                watching(grace_s=1.0, journal=storage.journal(), server=server) as there,
            ):
                there.vigil.worker_lost(1)
                del server.users[TOKEN]
                await server.until(lambda: here.vigil.doubted)
                until = time.monotonic() + 3.0
                while time.monotonic() < until:
                    there.accept(accepted("anna", "newer"))
                    await asyncio.sleep(0.05)
                    assert [] == here.ended
                await server.until(lambda: here.ended)
                assert ("anna", 7, 1008, "not signed in any more") == here.ends()[0]
            assert [("anna", 7)] == storage.rows("SELECT user_id, instance_id FROM acceptances")
            assert "newer" not in repr(storage.rows("SELECT * FROM acceptances"))

        run(test)

    def test_nobody_is_ended_while_the_others_cannot_be_asked(self, storage: Storage) -> None:
        """The journal is away: perhaps they know better."""

        async def test() -> None:
            journal = storage.journal()
            await journal.transact(lambda _: None)  # makes the tables
            await journal.close()
            async with watching(grace_s=0.2, journal=journal) as watch:
                # In threads, for they wait for transactions of this loop.
                await asyncio.to_thread(storage.script, "ALTER TABLE acceptances RENAME TO away")
                del watch.server.users[TOKEN]
                await watch.server.until(lambda: watch.vigil.doubted)
                await watch.until_asked(5)
                assert [] == watch.ended
                await asyncio.to_thread(storage.script, "ALTER TABLE away RENAME TO acceptances")
                await watch.server.until(lambda: watch.ended)

        run(test)

    def test_what_moves_is_seen(self, storage: Storage) -> None:
        """By the others, not by whoever has counted; once in a while, not each time."""
        clock = Clock()

        async def test() -> None:
            one, two, three = (
                Elsewhere(storage.journal(), every_s=10.0, monotonic=clock, wall=lambda: 1e9)
                for _ in range(3)
            )
            keys = [("anna", 7), ("anna", 8), ("ben", 7)]
            assert {} == await one.look(keys)
            seen = []
            for second in range(25):
                clock.now = float(second)
                for teller in (one, two):
                    teller.accepted(("anna", 7))
                    await teller.look([])
                seen.append((await three.look(keys) or {})[("anna", 7)])
            assert [*[2] * 11, *[4] * 11, *[6] * 3] == seen
            assert {} == await two.look(keys)
            assert {("anna", 7): 6} == await one.look(keys)
            for node in (one, two, three):
                await node.close()

        run(test)

    def test_what_is_old_is_forgotten(self, storage: Storage) -> None:
        """A row that nobody has counted on for a week; looked for once an hour."""
        clock, wall = Clock(), Clock()

        async def test() -> None:
            node = Elsewhere(storage.journal(), every_s=10.0, monotonic=clock, wall=wall)
            node.accepted(("anna", 7))
            await node.look([])
            clock.now = wall.now = 6 * 86_400.0
            node.accepted(("ben", 8))
            await node.look([])
            assert 2 == len(storage.rows("SELECT * FROM acceptances"))
            clock.now = wall.now = 8 * 86_400.0
            await node.look([])
            assert [("ben", 8)] == storage.rows("SELECT user_id, instance_id FROM acceptances")
            await node.close()

        run(test)

    def test_a_user_is_forgotten_who_is_anonymised(self, storage: Storage) -> None:
        """What is told of them goes, and nobody else's."""

        async def test() -> None:
            node = Elsewhere(storage.journal(), every_s=10.0, monotonic=Clock())
            for user in ("anna", "ben"):
                node.accepted((user, 7))
            await node.look([])
            await node.close()
            journal = storage.journal()
            await upkeep.anonymise(journal, "anna", lambda _: None)
            await journal.close()
            assert [("ben", 7)] == storage.rows("SELECT user_id, instance_id FROM acceptances")

        run(test)
