"""Opening connections to instances: the deadline, and what is left behind."""

import asyncio
import errno
import gc
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from support.conversation import Wire
from visa_jupyter_proxy.errors import InstanceTimeout, InstanceUnreachable
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.sockets.splice import Splices
from visa_jupyter_proxy.worker.upstream import Address, Upstream

_CONNECT_S = 5
_ADDRESS = Address("192.0.2.7", 8888, None)


class _Silent(asyncio.SelectorEventLoop):
    """A loop on whose network nobody answers."""

    async def create_connection(self, *_: object, **__: object) -> Any:
        await asyncio.Event().wait()


class _Refusing(asyncio.SelectorEventLoop):
    """A loop on whose network nobody listens."""

    async def create_connection(self, *_: object, **__: object) -> Any:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {_ADDRESS}")


def _run(
    scenario: Callable[[Pool, set[Timed]], Coroutine[Any, Any, None]],
    loop: Callable[[], asyncio.AbstractEventLoop] = _Silent,
) -> None:
    async def run() -> None:
        loop, connections = asyncio.get_running_loop(), set[Timed]()
        hangups = Hangups(loop)
        try:
            pool = Pool(
                loop,
                connections,
                hangups,
                Splices(loop, 0),
                connect_timeout_s=_CONNECT_S,
                response_timeout_s=1,
            )
            await scenario(pool, connections)
        finally:
            hangups.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def _begun(pool: Pool) -> "asyncio.Task[Any]":
    task = asyncio.create_task(pool.connect(_ADDRESS))
    await asyncio.sleep(0)
    return task


class TestDeadline:
    """An attempt is among the connections that the tick looks after."""

    def test_an_attempt_that_is_late_is_over(self) -> None:
        """It has its seconds, and then it is an `InstanceTimeout`, counted as one."""

        async def scenario(pool: Pool, connections: set[Timed]) -> None:
            task = await _begun(pool)
            (attempt,) = connections
            assert _CONNECT_S - 1 < attempt.deadline - pool.now() <= _CONNECT_S
            attempt.expired(attempt.deadline)
            assert attempt.deadline == math.inf
            with pytest.raises(InstanceTimeout):
                await task
            assert (set(), {"instance_timeout": 1}) == (connections, pool.attempts)

        _run(scenario)

    def test_a_client_that_leaves_at_that_moment_is_no_timeout(self) -> None:
        """Who cancels the request besides is not told that the instance was slow."""

        async def scenario(pool: Pool, connections: set[Timed]) -> None:
            task = await _begun(pool)
            (attempt,) = connections
            attempt.expired(attempt.deadline)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (set(), {}) == (connections, pool.attempts)

        _run(scenario)

    def test_an_attempt_outlives_the_order_to_drain(self) -> None:
        """Somebody waits for it."""

        async def scenario(pool: Pool, connections: set[Timed]) -> None:
            task = await _begun(pool)
            for attempt in [*connections]:
                attempt.drain()
            await asyncio.sleep(0)
            assert not task.done()
            task.cancel()

        _run(scenario)


class TestIdle:
    """How many idle connections are kept, where there is room for two of them beside those of clients."""

    def test_few_clients(self) -> None:
        """The oldest has to go for a third one."""

        async def scenario(pool: Pool) -> None:
            wires = _kept(pool, 3)
            assert [True, False, False] == [wire.closing for wire in wires]

        _run_with_room_for_two(scenario, clients=[1])

    def test_many_clients(self) -> None:
        """Who has none in use lends his part of the descriptors: there may be as many as clients."""

        async def scenario(pool: Pool) -> None:
            wires = _kept(pool, 4)
            assert [False] * 4 == [wire.closing for wire in wires]
            _opened(pool)
            assert [True, False, False, False] == [wire.closing for wire in wires]

        _run_with_room_for_two(scenario, clients=[4])

    def test_clients_that_leave_take_their_part_along(self) -> None:
        """Not all at once: for each that is opened one is closed, until there are two."""
        clients = [4]

        async def scenario(pool: Pool) -> None:
            _kept(pool, 4)
            clients[0] = 1
            idle = []
            for _ in range(3):
                _opened(pool)
                idle.append(pool.idle_count)
            assert [3, 2, 2] == idle

        _run_with_room_for_two(scenario, clients)

    def test_what_belongs_to_a_tunnel_is_none_of_them(self) -> None:
        """Neither is its client."""

        async def scenario(pool: Pool) -> None:
            upstream, _ = _opened(pool)
            pool.drop(upstream)
            _kept(pool, 3)
            assert 3 == pool.idle_count

        _run_with_room_for_two(scenario, clients=[3])


def _opened(pool: Pool) -> tuple[Upstream, Wire]:
    upstream, wire = Upstream(pool, _ADDRESS), Wire()
    upstream.connection_made(wire)
    return upstream, wire


def _kept(pool: Pool, count: int) -> list[Wire]:
    """Open so many, and have them kept one after the other."""
    opened = [_opened(pool) for _ in range(count)]
    for upstream, _ in opened:
        pool.keep(upstream)
    return [wire for _, wire in opened]


def _run_with_room_for_two(scenario: Callable[[Pool], Coroutine[Any, Any, None]], clients: list[int]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        hangups = Hangups(loop)
        pool = Pool(
            loop,
            set(),
            hangups,
            Splices(loop, 0),
            connect_timeout_s=_CONNECT_S,
            response_timeout_s=1,
            most_idle=2,
            clients=lambda: clients[0],
        )
        try:
            await scenario(pool)
        finally:
            hangups.close()

    asyncio.run(run())


def test_why_an_instance_is_unreachable_is_said_in_words() -> None:
    """Without its address, and without the name of a class."""

    async def scenario(pool: Pool, connections: set[Timed]) -> None:
        with pytest.raises(InstanceUnreachable, match=r"^Connection refused$"):
            await pool.connect(_ADDRESS)
        assert (set(), {"instance_unreachable": 1}) == (connections, pool.attempts)

    _run(scenario, _Refusing)


def test_a_client_that_leaves_while_we_connect_leaves_nothing_behind() -> None:
    """Not even until the garbage collector comes, which is much later in a worker."""

    async def scenario(pool: Pool, connections: set[Timed]) -> None:
        task = await _begun(pool)
        kind = type(next(iter(connections)))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        assert [] == [one for one in gc.get_objects() if isinstance(one, kind)]

    gc.collect()
    gc.disable()
    try:
        _run(scenario)
    finally:
        gc.enable()
