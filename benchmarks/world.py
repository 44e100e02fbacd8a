"""What is around a proxy: two instances at loopback addresses of their own, and the VISA API stand-in.

Instance 1 is nginx with files of the sizes that are asked for. Instance 2 echoes WebSockets, swallows
uploads and answers what a JupyterLab page asks for (`instance.py`, which is also the VISA API).
"""

import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import Failed, child, free_port, program

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = Path(__file__).with_name("page.json")
INSTANCE_PORT: Final = 8888
"""JupyterLab's, as in the routes that the package brings."""

SMALL: Final = 200
STREAM: Final = 64 * 1024
HUGE: Final = 1024**3

FILES: Final = {"/jupyter/1/small": SMALL, "/jupyter/1/stream": STREAM, "/jupyter/1/huge": HUGE}

_NGINX: Final = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/instance.pid;
error_log stderr warn;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/instance-body;
  proxy_temp_path {folder}/instance-proxy;
  fastcgi_temp_path {folder}/instance-fastcgi;
  uwsgi_temp_path {folder}/instance-uwsgi;
  scgi_temp_path {folder}/instance-scgi;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=100;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  server {{
    listen {host}:{port} backlog=10000;
    root {folder}/files;
  }}
}}
"""


@dataclass(frozen=True)
class World:
    """Where everything is."""

    folder: Path
    hosts: tuple[str, str]
    """Of instances 1 and 2."""
    api_port: int
    load_cpus: str | None
    proxy_cpu: str | None


@contextmanager
def running_world(
    folder: Path, *, proxy_cpu: str | None, load_cpus: str | None, first: bool = False
) -> Iterator[World]:
    """Start both instances and the API; they have ended when this block is left.

    With `first`, instance 1 answers before all else that is to be done (see `child`).
    """
    nginx = program("nginx")
    if nginx is None:
        raise Failed("nginx plays the instance, and is not installed: apt-get install nginx-light")
    network = _free_network()
    world = World(folder, (f"{network}.1", f"{network}.2"), free_port(), load_cpus, proxy_cpu)
    _write_files(folder / "files")
    configuration = folder / "instance.conf"
    configuration.write_text(
        _NGINX.format(folder=folder, host=world.hosts[0], port=INSTANCE_PORT, user=nginx_user())
    )
    echo = (sys.executable, "-m", "benchmarks.instance", world.hosts[1], str(INSTANCE_PORT))
    with ExitStack() as stack:
        files = stack.enter_context(
            child("instance", [nginx, "-c", configuration], folder, cpus=load_cpus, first=first)
        )
        other = stack.enter_context(
            child(
                "echo",
                [*echo, str(world.api_port), PAGE],
                folder,
                cpus=load_cpus,
                environment=python_environment(),
            )
        )
        files.wait_until_listening(INSTANCE_PORT, world.hosts[0])
        other.wait_until_listening(INSTANCE_PORT, world.hosts[1])
        other.wait_until_listening(world.api_port)
        yield world


def nginx_user() -> str:
    """Return nginx's directive that keeps its worker able to read our files: root's would change its user."""
    return "user root;" if os.geteuid() == 0 else ""


def python_environment() -> dict[str, str]:
    """Return an environment in which this package can be imported from any folder."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{inherited}" if inherited else str(ROOT)}


def _free_network() -> str:
    """Find a loopback network on which the instances' port is free: the routes name it."""
    for _ in range(100):
        network = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}"
        try:
            for last in (1, 2):
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((f"{network}.{last}", INSTANCE_PORT))
        except OSError:
            continue
        return network
    raise Failed(f"port {INSTANCE_PORT} is in use on every loopback address: something listens on 0.0.0.0")


def _write_files(folder: Path) -> None:
    for target, size in FILES.items():
        path = folder / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            # The huge one has no blocks: reading it costs no disk.
            file.truncate(size)
