"""What is done, when, and to whom: made of a seed alone, before anything happens.

plan = make_plan("seed", kills=100)       # the same for the same arguments, always
"""

import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Final, Literal

type Deed = Literal["open", "close", "lose", "overtake", "speak", "ask", "renew", "trouble", "kill", "start"]

NODES: Final = 2
USERS: Final = 6
NOTEBOOKS: Final = 30
"""Five of each user: enough that a kill finds some that open, some that close and some that move."""

KILLS: Final = ("worker", "workers", "machine", "machine", "control")
"""What is killed; `control` alone is what an OOM killer may choose."""

TROUBLES: Final = (
    "none",
    "none",
    "none",
    "fails",  # 500
    "refuses",  # 401: contract section 2
    "hangs",
    "forgets",  # a reset instead of an answer
    "obeys",  # does what it is told, and the answer is lost
    "babbles",  # what is not HTTP
    "mixed",
    "down",  # nobody listens
    "all down",  # and nothing is authorised either
)

_PACES: Final[dict[Deed, float]] = {
    "open": 4.0,
    "close": 2.0,
    "lose": 2.0,
    "overtake": 2.0,
    "speak": 3.0,
    "ask": 3.0,
    "renew": 0.3,
    "trouble": 0.7,
    "kill": 0.6,
}
"""How many of each there are in a second, about."""

_RESTART_S: Final = (0.1, 4.0)
"""Until a node comes back: before and after it is noticed by the other one."""


@dataclass(frozen=True)
class Step:
    """One deed."""

    at: float
    """Seconds from the beginning."""
    deed: Deed
    number: int
    """Of the notebook or the user; for others without a meaning."""
    node: int
    how: str = ""


def make_plan(seed: str, kills: int, seconds: float = math.inf) -> list[Step]:
    """Plan so many kills, or for so long, and all that happens around them.

    The last deed is a kill: whoever carries the plan out brings everything back.
    """
    steps: list[Step] = []
    for step in _deeds(random.Random(seed)):
        steps.append(step)
        if step.deed == "kill":
            kills -= 1
            if not kills or step.at >= seconds:
                break
    return steps


def digest(plan: list[Step]) -> str:
    """Give a short name of a plan, to see that two are the same."""
    return hashlib.sha256(repr([astuple(step) for step in plan]).encode()).hexdigest()[:12]


def _deeds(chance: random.Random) -> Iterator[Step]:
    at, deeds = 0.0, list(_PACES)
    starts: list[Step] = []
    for number in itertools.count():
        at += chance.expovariate(sum(_PACES.values()))
        while starts and starts[0].at <= at:
            yield starts.pop(0)
        (deed,) = chance.choices(deeds, [*_PACES.values()])
        if number < NOTEBOOKS:
            deed = "open"  # somebody is there when it begins
        step = _step(chance, at, deed)
        if step.deed == "kill":
            # Who is dead has to come back before.
            yield from (Step(at, "start", 0, start.node) for start in starts if start.node == step.node)
            starts = [start for start in starts if start.node != step.node]
        yield step
        if step.deed == "kill" and step.how in ("machine", "control"):
            back = at + chance.uniform(*_RESTART_S)
            starts = sorted([*starts, Step(back, "start", 0, step.node)], key=lambda start: start.at)


def _step(chance: random.Random, at: float, deed: Deed) -> Step:
    number, node = chance.randrange(NOTEBOOKS), chance.randrange(NODES)
    match deed:
        case "close" | "lose":
            return Step(at, deed, number, node, chance.choice(("FIN", "RST")))
        case "kill":
            return Step(at, deed, number, node, chance.choice(KILLS))
        case "trouble":
            return Step(at, deed, number, node, chance.choice(TROUBLES))
        case "ask" | "renew":
            return Step(at, deed, number % USERS, node)
        case _:
            return Step(at, deed, number, node)
