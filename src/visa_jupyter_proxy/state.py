"""What a process has open and under way at the moment: for the log on SIGUSR1, and for whoever counts.

`resources` is what the kernel and the event loop know of any process; `WorkerState` and `ControlState`
are what the two kinds know of themselves. All are plain numbers, made when they are asked for.
Nothing under way means: all but `grants` and what is kept for reuse is 0, and descriptors and tasks are
as many as at the start.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from visa_jupyter_proxy import logs

_KIB: Final = 1024


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What every process uses."""

    pid: int
    descriptors: int
    """Open file descriptors, of all kinds."""
    tasks: int
    """Unfinished asyncio tasks."""
    memory_kib: int
    """Resident, as `ps` shows it (RSS)."""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True, tag_field="process", tag="worker"):
    """What a worker has under way. Every connection is one descriptor; a tunnel is two, and so is a pipe."""

    clients: int
    """What counts for `MAX_CONNECTIONS`: `downstream` and `tunnels`."""
    downstream: int
    """Connections of clients that are no tunnels."""
    upstream_busy: int
    """Connections to instances that serve a request."""
    upstream_idle: int
    """Connections to instances that are kept for the next request."""
    tunnels: int
    """WebSockets, each a client's connection and one to an instance."""
    pipes_busy: int
    """Pipes through which the kernel moves a body: two descriptors each."""
    pipes_idle: int
    """Pipes that are kept for the next one."""
    grants: int
    """Authorisations that are remembered."""
    api_connections: int
    """Connections to the VISA API, those that are kept for the next question included."""


class ControlState(msgspec.Struct, frozen=True, kw_only=True, tag_field="process", tag="control"):
    """What control has under way."""

    workers: int
    """Workers that accept connections."""
    notebook_connections: int
    """Open connections of notebook sessions, on all workers of this process."""
    journal: str
    """`starting`, `written` or `failing`."""
    upkeep: bool
    """Whether the journal is being tidied up, on a connection of its own."""
    records_waiting: int
    """Records that are not in the journal yet."""
    reports_pending: int
    """Reports that the VISA API has not confirmed yet."""
    access_watched: int
    """Users with tunnels, for each instance, about whose access the VISA API is asked."""
    access_doubted: int
    """Those of them whose newest token it refuses."""
    api_connections: int
    """Connections to the VISA API, those that are kept for the next report included."""


def resources() -> Resources:
    """Measure this process; needs the running loop, and Linux's /proc."""
    return Resources(
        pid=os.getpid(),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 -- the list's own is one of them
        tasks=len(asyncio.all_tasks()),
        memory_kib=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // _KIB,
    )


def write(state: WorkerState | ControlState) -> None:
    """Write the line of this process to the log."""
    told: dict[str, object] = msgspec.to_builtins(state)
    used: dict[str, object] = msgspec.to_builtins(resources())
    logs.get().notice("state", process=told.pop("process"), **used, **told)
