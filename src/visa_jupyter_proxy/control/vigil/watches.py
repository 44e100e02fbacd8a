"""Who is watched: each user with live tunnels to an instance, and when they are asked about next.

Plain code: `now` is a monotonic clock in seconds. Nothing here asks anybody; what is concluded comes back
as `EndTunnels`.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, override

from visa_jupyter_proxy.close_codes import GOING_AWAY, POLICY_VIOLATION
from visa_jupyter_proxy.control.vigil.answers import Told
from visa_jupyter_proxy.control.vigil.table import GRACE, TABLE, Grace, Heard, Standing, Step
from visa_jupyter_proxy.mailbox import AccessHeld, EndTunnels

LONGEST_CONFIRM_S: Final = 5.0
"""Until a firm answer is asked for again: of a period of a minute, a tenth would be six seconds."""

SPREAD: Final = 0.2
"""A period is up to so much shorter: what was asked at once is not asked at once again."""

REVOKED: Final = "access revoked"
GONE: Final = "instance stopped or deleted"
SIGNED_OUT: Final = "not signed in any more"
MOVED: Final = "instance moved"

type Key = tuple[str, int]
"""User and instance."""


@dataclass(slots=True, eq=False)
class Watch:
    """One user, and one instance to which they have live tunnels."""

    user: str
    instance_id: int
    token: str = field(repr=False)
    """That of the first tunnel, for want of a newer one."""
    address: str | None
    """Where their tunnels lead; None when they lead to several places."""
    held_at: float
    due: float
    workers: set[int] = field(default_factory=set)
    """Numbers of the workers where the tunnels are; empty when it is over."""
    standing: Standing = Standing.GOOD
    refused_at: float | None = None
    """Since when the grace runs."""
    asked_at: float | None = None
    """When the question began that is under way."""
    seen: int | None = None
    """How often others had accepted a token when that was looked up last; see `elsewhere`."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.user, self.instance_id


class Watches:
    """All of them."""

    def __init__(
        self, *, recheck_s: float, grace_s: float, asks_others: bool, jitter: Callable[[], float]
    ) -> None:
        """With a period of 0 nobody is asked about, and nothing is concluded.

        `asks_others`: a grace is over only when other nodes have been asked (`elsewhere`). `jitter` gives
        random numbers from 0 to 1.
        """
        self._recheck_s = recheck_s
        self._grace_s = grace_s
        self._asks_others = asks_others
        self._jitter = jitter
        self._watches: dict[Key, Watch] = {}
        self._of_user: dict[str, set[int]] = {}
        """User -> the instances that they are watched for."""
        self._doubted: dict[Key, Watch] = {}
        """Those whose grace runs."""
        # An entry that is overtaken by events stays, and is thrown away when its turn comes.
        self._times: list[tuple[float, int, Watch]] = []
        self._entries = itertools.count()

    @override
    def __repr__(self) -> str:
        return f"Watches({len(self)}, doubted={self.doubted})"

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def watched(self) -> int:
        """How many are asked about."""
        return len(self) if self._recheck_s else 0

    def instances(self, user: str) -> int:
        """To how many a user has tunnels, whether or not anybody is asked."""
        return len(self._of_user.get(user, ()))

    @property
    def doubted(self) -> int:
        """For how many the grace runs."""
        return len(self._doubted)

    @property
    def _confirm_s(self) -> float:
        return min(self._recheck_s / 10, LONGEST_CONFIRM_S)

    def reload(self, recheck_s: float, grace_s: float, now: float) -> None:
        """Go by other periods from now on; as at the beginning, the next questions are anywhere in one."""
        self._recheck_s, self._grace_s = recheck_s, grace_s
        for watch in self._watches.values():
            self._schedule(watch, now + recheck_s * self._jitter())

    # --- who has tunnels ----------------------------------------------------------------------

    def held(self, worker: int, message: AccessHeld, now: float) -> None:
        """Watch: a worker has tunnels of this user to this instance, or some to another address."""
        key = (message.user, message.instance_id)
        watch = self._watches.get(key)
        if watch is None:
            # Anywhere in a period: after a restart all come at once.
            due = now + self._recheck_s * self._jitter()
            watch = Watch(message.user, message.instance_id, message.token, message.host, now, due)
            self._watches[key] = watch
            self._of_user.setdefault(message.user, set()).add(message.instance_id)
            self._schedule(watch, due)
        elif watch.address != message.host:
            watch.address = None
            self._schedule(watch, now)
        watch.held_at = now
        watch.workers.add(worker)

    def released(self, worker: int, user: str, instance_id: int) -> None:
        """Know that a worker has no tunnels any more of this user to this instance."""
        watch = self._watches.get((user, instance_id))
        if watch is not None:
            watch.workers.discard(worker)
            if not watch.workers:
                self._drop(watch)

    def lost(self, worker: int) -> None:
        """Know that a worker is gone, with all its tunnels."""
        for watch in [one for one in self._watches.values() if worker in one.workers]:
            self.released(worker, *watch.key)

    # --- who is to be asked about -----------------------------------------------------------------

    def due(self, now: float, most: int) -> list[Watch]:
        """Take those to be asked about now; each comes back by `answered` or `broken_off`."""
        due: list[Watch] = []
        while len(due) < most:
            at = self.next_at()
            if at is None or at > now:
                break
            _, _, watch = heapq.heappop(self._times)
            watch.asked_at = now
            due.append(watch)
        return due

    def next_at(self) -> float | None:
        """Say when somebody is to be asked about; None when nobody is."""
        if not self._recheck_s:
            return None
        while self._times and not _is_valid(*self._times[0]):
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None

    # --- what is heard ------------------------------------------------------------------------

    def answered(self, watch: Watch, told: Told, now: float) -> list[EndTunnels]:
        """Conclude from the answer to a question."""
        asked_at, watch.asked_at, watch.due = watch.asked_at, None, math.inf
        if not (watch.workers and self._recheck_s):
            return []  # it is over, and who is watched now under this key is another one
        # Whoever came meanwhile may know of a newer address than the answer.
        is_newest = asked_at is not None and watch.held_at <= asked_at
        return self._told(watch, told if is_newest else Told(told.heard), now)

    def broken_off(self, watch: Watch, now: float) -> None:
        """Ask soon again: the question has come to no end, or was overtaken by a newer token."""
        watch.asked_at = None
        if watch.workers:
            self._schedule(watch, now + self._confirm_s)

    def accepted(self, user: str, instance_id: int, told: Told, now: float) -> list[EndTunnels]:
        """Know that the API has accepted a token of a user, asked about an instance by a worker."""
        endings: list[EndTunnels] = []
        if not self._recheck_s:
            return endings
        for other in self._of_user.get(user, ()):
            watch = self._watches[user, other]
            what = told if other == instance_id else Told(Heard.TOKEN_ACCEPTED)
            endings += self._told(watch, what, now)
        return endings

    # --- the grace ------------------------------------------------------------------------------

    def in_doubt(self) -> list[Key]:
        """Give those whose grace runs, to be looked up at the other nodes."""
        return [*self._doubted]

    def elsewhere(self, counts: Mapping[Key, int], now: float) -> None:
        """Know how often other nodes have accepted a token so far, of those that were `in_doubt`."""
        for key, count in counts.items():
            watch = self._doubted.get(key)
            if watch is None:
                continue  # whose grace has ended meanwhile
            if watch.seen != count:
                # The first look says nothing yet: only who looks twice sees that something moves.
                self._told(watch, Told(Heard.ACCEPTED_ELSEWHERE), now)
            watch.seen = count

    def lapsed(self, now: float) -> list[EndTunnels]:
        """End those whose grace is over; others nodes have just been asked, if there are any."""
        if not self._recheck_s:
            return []
        over = [one for one in self._doubted.values() if self._is_over(one, now)]
        return [*self._all(over, Told(Heard.GRACE_OVER), now)]

    def _is_over(self, watch: Watch, now: float) -> bool:
        if watch.refused_at is None or (self._asks_others and watch.seen is None):
            return False
        return now - watch.refused_at >= self._grace_s

    # --- conclusions ----------------------------------------------------------------------------

    def _all(self, watches: Iterable[Watch], told: Told, now: float) -> Iterator[EndTunnels]:
        for watch in watches:
            yield from self._told(watch, told, now)

    def _told(self, watch: Watch, told: Told, now: float) -> list[EndTunnels]:
        self._mind_grace(watch, told.heard, now)
        watch.standing, step = TABLE[watch.standing][told.heard]
        self._plan(watch, step, now)
        endings = self._moved(watch, told.address)
        match step:
            case Step.REVOKE:
                reason = SIGNED_OUT if told.heard is Heard.GRACE_OVER else REVOKED
                endings.append(_ending(watch, POLICY_VIOLATION, reason))
            case Step.LEAVE:
                endings.append(_ending(watch, GOING_AWAY, GONE))
        return endings

    def _mind_grace(self, watch: Watch, heard: Heard, now: float) -> None:
        match GRACE[heard]:
            case Grace.ENDS:
                watch.refused_at = watch.seen = None
                self._doubted.pop(watch.key, None)
            case Grace.BEGINS if watch.refused_at is None:
                watch.refused_at = now
                self._doubted[watch.key] = watch
            case Grace.BEGINS_ANEW if watch.refused_at is not None:
                watch.refused_at = now

    def _plan(self, watch: Watch, step: Step, now: float) -> None:
        if step is Step.CONFIRM:
            # Nobody puts a question off by whatever else they do.
            self._schedule(watch, min(watch.due, now + self._confirm_s))
        elif step is not Step.WAIT:
            self._schedule(watch, now + self._recheck_s * (1 - SPREAD * self._jitter()))

    def _moved(self, watch: Watch, address: str | None) -> list[EndTunnels]:
        if address is None or address == watch.address:
            return []
        watch.address = address
        return [
            EndTunnels(
                instance_id=watch.instance_id,
                not_host=address,
                code=GOING_AWAY,
                reason=MOVED,
                forget_grants=True,
            )
        ]

    def _schedule(self, watch: Watch, due: float) -> None:
        watch.due = due
        heapq.heappush(self._times, (due, next(self._entries), watch))

    def _drop(self, watch: Watch) -> None:
        del self._watches[watch.key]
        self._doubted.pop(watch.key, None)
        instances = self._of_user[watch.user]
        instances.discard(watch.instance_id)
        if not instances:
            del self._of_user[watch.user]


def _is_valid(at: float, _entry: int, watch: Watch) -> bool:
    return at == watch.due and watch.asked_at is None and bool(watch.workers)


def _ending(watch: Watch, code: int, reason: str) -> EndTunnels:
    return EndTunnels(
        user=watch.user, instance_id=watch.instance_id, code=code, reason=reason, forget_grants=True
    )
