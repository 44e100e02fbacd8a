"""The proxies, each configured in good faith for the same work, and none logging what succeeds.

Ours logs refused and failed requests alone by default (`ACCESS_LOG=errors`), and has all other settings
at their defaults too; the environment has only what an operator must say: addresses and networks.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.processes import Child, child, free_port
from benchmarks.world import World

PREFIX: Final = "VISA_JUPYTER_PROXY_"


@dataclass(frozen=True)
class Running:
    """A proxy that accepts connections."""

    name: str
    port: int
    child: Child


@contextmanager
def ours(world: World) -> Iterator[Running]:
    """Run ours: one worker, default settings."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "visa_jupyter_proxy", "serve"]
    with child(
        "ours", command, world.folder, cpus=world.proxy_cpu, environment=our_environment(world, port)
    ) as running:
        running.wait_until_listening(port)
        yield Running("ours", port, running)


def our_environment(world: World, port: int) -> dict[str, str]:
    """Make the environment that an operator would set; our instances are at loopback addresses."""
    settings = {
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "API_HOST": "127.0.0.1",
        "API_PORT": str(world.api_port),
        "STORAGE_DIR": str(world.folder / "data"),
        "INSTANCE_NETWORKS": "127.0.0.0/8",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | {PREFIX + name: value for name, value in settings.items()}
