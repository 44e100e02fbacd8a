"""Opening connections to instances: the deadline, and what is left behind."""

import asyncio
import errno
import gc
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from visa_jupyter_proxy.errors import InstanceTimeout, InstanceUnreachable
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.sockets.splice import Splices
from visa_jupyter_proxy.worker.upstream import Address

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
