"""wrk, where it can do the work: one request over and over, from many connections."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.driver import Result
from benchmarks.processes import Failed, program
from benchmarks.world import World

_HEAD_MOST: Final = 1000
"""More bytes than any proxy's response head has."""

# What came back is judged at the end: a callback for each response would make wrk the bottleneck.
_SCRIPT: Final = """
{fields}
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"done": %d, "us": %d, "bytes": %d, "errors": %d, "p50": %d, "p99": %d}}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """What wrk shall ask for, and the size of the body that is due."""

    target: str
    size: int
    connections: int
    close: bool = False
    """Whether each request has a connection of its own."""


def run(world: World, port: int, request: Request, seconds: float) -> Result:
    """Ask for that many seconds. Raises `Failed` when a response was not complete and correct."""
    script = world.folder / "wrk.lua"
    script.write_text(_script(request))
    url = f"http://127.0.0.1:{port}{request.target}"
    command = ["-t1", f"-c{request.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    ran = _wrk(world, [*command, "-s", script, url], seconds)
    said = json.loads(ran.strip().rpartition("\n")[2])
    body = said["bytes"] / said["done"] if said["done"] else 0
    if said["errors"] or not request.size <= body <= request.size + _HEAD_MOST:
        raise Failed(f"wrk: {said['errors']} errors, {body:.0f} bytes a response instead of {request.size}")
    latency = {"p50": float(said["p50"]), "p99": float(said["p99"])}
    return Result(said["done"], said["us"] / 1e6, latency)


def _wrk(world: World, arguments: list[str | Path], seconds: float) -> str:
    wrk = program("wrk")
    if wrk is None:
        raise Failed("wrk is not installed")
    pinned = ["taskset", "--cpu-list", world.load_cpus] if world.load_cpus is not None else []
    command = ["setpriv", "--pdeathsig", "KILL", *pinned, wrk, *arguments]
    try:
        ran = subprocess.run(command, check=False, capture_output=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise Failed("wrk does not end") from None
    if ran.returncode != 0:
        raise Failed(f"wrk: {ran.stderr.decode()[-500:]}")
    return ran.stdout.decode()


def _script(request: Request) -> str:
    fields = messages.FIELDS | {"Cookie": messages.cookie()}
    if request.close:
        fields |= {"Connection": "close"}
    lines = (f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in fields.items())
    return _SCRIPT.format(fields="\n".join(lines))
