"""A short run of the chaos, with a fixed seed: `make chaos` runs longer, with another one each time."""

import asyncio
from pathlib import Path

import pytest

from chaos.campaign import run
from chaos.nodes import Killed
from chaos.people import Notebook, Seen, User
from chaos.plan import KILLS, NODES, TROUBLES, Step, digest, make_plan
from chaos.verdict import Book, judge
from support.storage import Storage

_SEED = "224"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_random_moments(tmp_path: Path, storage: Storage) -> None:
    """VISA, the journal and the people agree at the end; none is lost, none is invented."""
    plan = make_plan(_SEED, kills=8)
    outcome = asyncio.run(
        run(plan, seed=_SEED, directory=tmp_path, settings=storage.settings, rows=storage.rows)
    )
    print(outcome)  # noqa: T201 -- for `pytest -rP`
    assert [] == outcome.problems, f"see {tmp_path}; {outcome}"
    # Something did happen.
    assert outcome.figures["kills"] == 8
    assert isinstance(seen := outcome.figures["101s"], int)
    assert seen > 30


class TestPlan:
    """What is done is made of the seed alone."""

    def test_a_seed_can_be_repeated(self) -> None:
        """The same seed gives the same deeds at the same moments, another one gives others."""
        assert make_plan("a", 50) == make_plan("a", 50)
        assert digest(make_plan("a", 50)) == digest(make_plan("a", 50)) != digest(make_plan("b", 50))

    def test_a_plan_may_end_early(self) -> None:
        """With the first kill after the time; it is the beginning of the longer one."""
        short, long = make_plan("a", 100, 30.0), make_plan("a", 100)
        assert long[: len(short)] == short
        assert ("kill", True) == (short[-1].deed, 30 <= short[-1].at < 60)

    def test_everything_is_done(self) -> None:
        """A long plan has as many kills as were asked for, of every kind and node, and every trouble."""
        plan = make_plan("a", 100)
        kills = [step for step in plan if step.deed == "kill"]
        assert 100 == len(kills)
        assert {*KILLS} == {step.how for step in kills}
        assert {*range(NODES)} == {step.node for step in kills}
        assert {*TROUBLES} == {step.how for step in plan if step.deed == "trouble"}
        assert sorted(step.at for step in plan) == [step.at for step in plan]

    def test_nobody_is_killed_twice(self) -> None:
        """Who is dead comes back before it can be killed again."""
        down: set[int] = set()
        for step in make_plan("a", 100):
            match step:
                case Step(deed="start", node=node):
                    down.remove(node)
                case Step(deed="kill", node=node, how=how):
                    assert node not in down
                    if how in ("machine", "control"):
                        down.add(node)


class TestVerdict:
    """What a comparison finds: each of these worlds has one fault, and the first has none."""

    KEY = (100, "kernel-0", "session-0")

    def _judge(
        self, book: Book, *, active: bool = True, connected: bool = True, killed_at: float = 0.0
    ) -> list[str]:
        """Judge a notebook that was told at second 10 that it is connected, and may be so still."""
        notebook = Notebook("", 0, User(0), lambda _: None, 1)
        notebook.seen.append(Seen(0, 9.0, 10.0))
        if connected:
            notebook._channels.add(None)  # type: ignore[arg-type]  # any will do: they are counted
        return judge([notebook], [self.KEY] * active, book, [Killed(0, killed_at)]).problems

    def _book(self, *, ended: bool, report: str = "delivered") -> Book:
        over = (11.0, 12.0, "closed") if ended else (None, None, None)
        kinds = ["open", "close"] if ended else ["open"]
        return Book(
            {self.KEY: [("S", 9.5, *over[1:])]},
            {self.KEY: [(9.5, *over)]},
            {"S": [(kind, report) for kind in kinds]},
        )

    def test_agreement(self) -> None:
        """Open and active, or closed and not; or not delivered, and known to be so."""
        assert [] == self._judge(self._book(ended=False))
        assert [] == self._judge(self._book(ended=True), active=False, connected=False)
        assert [] == self._judge(self._book(ended=False, report="not delivered"), active=False)

    @pytest.mark.parametrize(
        ("ended", "report", "active", "connected"),
        [
            (False, "delivered", False, True),
            (True, "delivered", True, False),
            (False, "delivered", True, False),
            (True, "delivered", True, True),
            (False, "pending", True, True),
        ],
        ids=["not told", "told too much", "not closed", "closed while it lives", "pending"],
    )
    def test_disagreement(self, ended: bool, report: str, active: bool, connected: bool) -> None:
        """Whoever is wrong, it is found."""
        assert self._judge(self._book(ended=ended, report=report), active=active, connected=connected)

    def test_what_is_lost(self) -> None:
        """A 101 that is in no journal is a fault, unless whoever knew of it was killed in that moment."""
        empty = Book()
        assert self._judge(empty, active=False, connected=False)
        assert [] == self._judge(empty, active=False, connected=False, killed_at=10.1)
