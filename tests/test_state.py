"""The state of a process: what is measured, and the line that says it."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from visa_jupyter_proxy import logs, state
from visa_jupyter_proxy.state import ControlState, Resources, WorkerState, resources

_MIB = 2**20

_WORKER = WorkerState(
    clients=5,
    downstream=3,
    upstream_busy=1,
    upstream_idle=7,
    tunnels=2,
    pipes_busy=1,
    pipes_idle=2,
    grants=4,
    api_connections=1,
)


def _measured() -> Resources:
    async def measure() -> Resources:
        return resources()

    return asyncio.run(measure())


def test_descriptors() -> None:
    """Each one that is opened counts, and the counting itself does not."""
    before = _measured()
    with Path(os.devnull).open("rb"):
        assert before.descriptors + 1 == _measured().descriptors
    assert before.descriptors == _measured().descriptors
    assert os.getpid() == before.pid


def test_tasks() -> None:
    """Those that have not ended count, the one that asks among them."""

    async def measure() -> list[int]:
        forever = asyncio.Event()
        counts = [resources().tasks]
        waiting = [asyncio.create_task(forever.wait()) for _ in range(3)]
        counts.append(resources().tasks)
        forever.set()
        await asyncio.gather(*waiting)
        counts.append(resources().tasks)
        return counts

    assert [1, 4, 1] == asyncio.run(measure())


def test_memory() -> None:
    """What is written to is resident, in KiB."""
    before = _measured().memory_kib
    block = bytearray(b"x" * 64 * _MIB)
    grown = _measured().memory_kib - before
    assert 60 * 1024 < grown < 140 * 1024, len(block)


def test_the_line_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: which process, what it uses, what it has under way."""
    assert {"event": "state", "level": "notice", "process": "worker"} | _fields(_WORKER) == _line(
        _WORKER, tmp_path, monkeypatch
    )


def test_the_line_of_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, with what only control knows."""
    told = ControlState(
        workers=2,
        notebook_connections=3,
        journal="failing",
        upkeep=True,
        records_waiting=4,
        reports_pending=5,
        access_watched=6,
        access_doubted=7,
        api_connections=0,
    )
    assert {"event": "state", "level": "notice", "process": "control"} | _fields(told) == _line(
        told, tmp_path, monkeypatch
    )


def _fields(told: WorkerState | ControlState) -> dict[str, object]:
    own = {name: getattr(told, name) for name in told.__struct_fields__}
    return own | {"pid": os.getpid(), "descriptors": 9, "tasks": 2, "memory_kib": 45_000}


def _line(
    told: WorkerState | ControlState, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Write `told` to a log, and read the line, without its time."""
    used = Resources(pid=os.getpid(), descriptors=9, tasks=2, memory_kib=45_000)
    monkeypatch.setattr(state, "resources", lambda: used)
    written = directory / "log"
    with written.open("w") as stream, pytest.MonkeyPatch.context() as patch:
        output = logs.logger._output
        for name, value in vars(output).items():
            patch.setattr(output, name, value)
        output.to(stream)
        state.write(told)
    (line,) = written.read_text().splitlines()
    found: dict[str, object] = json.loads(line)
    del found["timestamp"]
    return found


def test_every_field_is_explained() -> None:
    """The page has a row for each field of the two kinds of line, and no other."""
    page = (Path(__file__).parent.parent / "docs" / "behaviour.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (all|worker|control) \|", page, re.MULTILINE)
    written = {kind: {name for name, of in rows if of in ("all", kind)} for kind in ("worker", "control")}
    every = {"process", *Resources.__struct_fields__}
    assert written == {
        "worker": every | {*WorkerState.__struct_fields__},
        "control": every | {*ControlState.__struct_fields__},
    }
