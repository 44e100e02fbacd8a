"""What is measured: the work, its unit, and how a proxy that has just been started is made to do it."""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks import wrk
from benchmarks.counters import Usage, cpu_us, memory, memory_of, usage
from benchmarks.driver import Driver, Result
from benchmarks.load import TARGETS
from benchmarks.messages import FIELDS, cookie
from benchmarks.processes import PATIENCE_S, Failed, wait
from benchmarks.proxies import Running
from benchmarks.world import PAGE, SMALL, STREAM, World

type Sample = dict[str, float]
"""What one proxy gave in one round: names of figures (see `report`), and their values."""

CONNECTIONS: Final = 32

WARM_UP_S: Final = 2.0
"""Enough for CPython's specialising interpreter, and on hardware for V8 to compile."""

_RAMP: Final = 3
"""Requests for each connection until all of them work: every second answer lets another one begin."""

_LOOK_S: Final = 0.3
_IDLE_PART: Final = 0.03
"""Of a CPU: what a process takes that only looks once a second whether there is something to do."""
_IDLE_AT_LAST_S: Final = 60.0

_SETTLE_S: Final = 2.0
_IDLE: Final = 3000
_BURST: Final = 100
_BURSTS: Final = 20


@dataclass(frozen=True)
class Stage:
    """A proxy that has just been started, and what is around it."""

    world: World
    proxy: Running
    seconds: float
    """How long work goes on that could go on for ever."""
    warm_up: float
    """And how long before it is measured; seconds."""


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    unit: str
    measure: Callable[[Stage], Sample]


def _sample(result: Result, used: Usage, units: float) -> Sample:
    if not units:
        raise Failed("nothing was done in time")
    sample = {"cpu_us": used.cpu_us / units, "units": units, "units_per_s": units / result.seconds}
    for name in ("user_instructions", "kernel_instructions"):
        count = getattr(used, name)
        if count is not None:
            sample[name] = count / units
    return sample | {f"{name}_us": value for name, value in result.latency_us.items()}


def _probe(stage: Stage, target: str, size: int) -> None:
    """Ask once, and read every byte: what wrk counts later is the same."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.proxy.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", target, headers=FIELDS | {"Cookie": cookie()})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"no answer for {target}: {error!r}") from None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or len(body) != size:
        raise Failed(f"{target}: {answer.status} with {len(body)} bytes instead of {size}")


def _by_wrk(work: str, size: int, close: bool, stage: Stage) -> Sample:
    request = wrk.Request(TARGETS[work], size, CONNECTIONS, close)
    _probe(stage, request.target, request.size)
    wrk.run(stage.world, stage.proxy.port, request, stage.warm_up)
    with usage(stage.proxy.child) as used:
        result = wrk.run(stage.world, stage.proxy.port, request, stage.seconds)
    return _sample(result, used, result.done)


def _by_our_client(work: str, connections: int, divisor: int, stage: Stage) -> Sample:
    """Have work done for a while; a unit is `divisor` times what the client counts."""
    with Driver.running(stage.world, work, stage.proxy.port, connections) as load:
        load.order(f"ramp {_RAMP * connections}")
        load.order(f"seconds {stage.warm_up}")
        _wait_until_idle(stage.proxy)  # what the warm-up has left behind is not what is measured
        with usage(stage.proxy.child) as used:
            result = load.order(f"seconds {stage.seconds}")
            _wait_until_idle(stage.proxy)
    return _sample(result, used, result.done / divisor)


def _wait_until_idle(proxy: Running) -> None:
    """Wait for what a proxy does behind its answers: it belongs to them, too (ours reports sessions)."""

    def idle() -> bool:
        before = sum(map(cpu_us, proxy.child.pids()))
        time.sleep(_LOOK_S)
        return sum(map(cpu_us, proxy.child.pids())) - before < _IDLE_PART * _LOOK_S * 1e6

    wait(idle, f"{proxy.name} to be idle", _IDLE_AT_LAST_S)


def _transfer(work: str, stage: Stage) -> Sample:
    with Driver.running(stage.world, work, stage.proxy.port, 1) as load, usage(stage.proxy.child) as used:
        result = load.order("count 1")
    return _sample(result, used, result.done)


def _idle(stage: Stage) -> Sample:
    """Memory of a WebSocket that has had one message each way: over the first few, which stay open."""
    port = stage.proxy.port
    with ExitStack() as stack:
        stack.enter_context(Driver.running(stage.world, "ws", port, CONNECTIONS))
        time.sleep(_SETTLE_S)
        before = memory_of(stage.proxy.child)
        stack.enter_context(Driver.running(stage.world, "ws", port, _IDLE))
        time.sleep(_SETTLE_S)
        return {"bytes": (memory_of(stage.proxy.child) - before) / _IDLE}


def _cold(stage: Stage) -> Sample:
    """Bursts of requests with a token that was not seen before; warmed up with other tokens."""
    with Driver.running(stage.world, "cold", stage.proxy.port, _BURST) as load:
        results = [load.order(f"count {_BURST}") for _ in range(_BURSTS)]
        asked = _asked(stage.world)
        with usage(stage.proxy.child) as used:
            results = [load.order(f"count {_BURST}") for _ in range(_BURSTS)]
        calls = (_asked(stage.world) - asked) / _BURSTS
    last = {name: max(result.latency_us[name] for result in results) for name in ("p50", "p99")}
    whole = Result(_BURSTS * _BURST, sum(result.seconds for result in results), last)
    return _sample(whole, used, _BURSTS) | {"api_calls": calls}


def _asked(world: World) -> int:
    """Return how often the VISA API was asked for an instance."""
    connection = http.client.HTTPConnection("127.0.0.1", world.api_port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/asked")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def _rest(stage: Stage) -> Sample:
    """Time to the first answer, and memory when nothing happens."""
    time.sleep(_SETTLE_S)
    pids = stage.proxy.child.pids()
    sample = {"start_s": stage.proxy.start_s, "bytes": sum(map(float, map(memory, pids)))}
    if stage.proxy.name == "ours":
        control = stage.proxy.child.pid
        (worker,) = (pid for pid in pids if pid != control)
        sample |= {"control_bytes": memory(control), "worker_bytes": memory(worker)}
    return sample


def _requests_of_page() -> int:
    return len(json.loads(PAGE.read_text()))


SCENARIOS: Final = (
    Scenario("small", "small answer, 200 B", "request", partial(_by_wrk, "small", SMALL, False)),
    Scenario("stream", "64 KiB answer", "request", partial(_by_wrk, "stream", STREAM, False)),
    Scenario("connection", "connection per request", "request", partial(_by_wrk, "small", SMALL, True)),
    Scenario("ws", "WebSocket echo, 64 B", "echo", partial(_by_our_client, "ws", CONNECTIONS, 1)),
    Scenario("ws64k", "WebSocket echo, 64 KiB", "echo", partial(_by_our_client, "ws64k", CONNECTIONS, 1)),
    Scenario(
        "kernel", "kernel channel echo, 64 B", "echo", partial(_by_our_client, "kernel", CONNECTIONS, 1)
    ),
    Scenario("open", "opening a WebSocket", "WebSocket", partial(_by_our_client, "open", 16, 1)),
    Scenario(
        "openkernel", "opening a kernel channel", "WebSocket", partial(_by_our_client, "openkernel", 16, 1)
    ),
    Scenario("page", "JupyterLab page load", "page", partial(_by_our_client, "page", 6, _requests_of_page())),
    Scenario("cold", "100 cold requests", "burst", _cold),
    Scenario("download", "download of 1 GiB", "GiB", partial(_transfer, "download")),
    Scenario("upload", "upload of 1 GiB", "GiB", partial(_transfer, "upload")),
    *(
        Scenario(f"c{n}", f"request, {n} connections", "request", partial(_by_our_client, "small", n, 1))
        for n in (10, 100, 1000, 8000)
    ),
    Scenario("idle", "idle WebSocket", "WebSocket", _idle),
    Scenario("rest", "start, and memory at rest", "process", _rest),
)

CHECKED: Final = ("small", "stream", "connection", "ws")
"""The ones that `make bench-check` runs."""
