"""The proxies, each configured in good faith for the same work, and no other one logging what succeeds.

Ours has all settings at their defaults, so the end of every WebSocket has a line of its log, besides what is
refused and fails; the environment has only what an operator must say: addresses and networks.
"""

import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.processes import PATIENCE_S, Child, Failed, child, free_port, program, wait
from benchmarks.world import INSTANCE_PORT, ROOT, World, nginx_user
from visa_jupyter_proxy import __version__

PREFIX: Final = "VISA_JUPYTER_PROXY_"

CHP: Final = ROOT / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
"""`make bench` puts it there."""


@dataclass(frozen=True)
class Running:
    """A proxy that accepts connections."""

    name: str
    port: int
    child: Child
    start_s: float
    """From its start to its first answer."""


@contextmanager
def ours(world: World, **settings: str) -> Iterator[Running]:
    """Run ours: one worker, default settings but for those that are given."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "visa_jupyter_proxy", "serve"]
    with _running(world, "ours", command, port, our_environment(world, port, **settings)) as running:
        yield running


def our_environment(world: World, port: int, **more: str) -> dict[str, str]:
    """Make the environment that an operator would set; our instances are at loopback addresses."""
    settings = more | {
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "ADMIN_PORT": "0",
        "API_HOST": "127.0.0.1",
        "API_PORT": str(world.api_port),
        "STORAGE_DIR": str(world.folder / "data"),
        "INSTANCE_NETWORKS": "127.0.0.0/8",
    }
    # What developers set for their Python (no byte code on disk, say) is not how it runs in production.
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONDEVMODE", "PYTHONMALLOC")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in left_out
    }
    return inherited | {PREFIX + name: value for name, value in settings.items()}


_NGINX: Final = """
# Tuned: no spooling to disk in either direction, buffers of 64 KiB (a first one of 4 KiB, its default, is
# that of a WebSocket, which then takes three times as much for 64 KiB; an upload with 16 KiB takes twice as
# much), connections that stay, and the answer to the question whether a token may use an instance kept for as
# long as ours keeps it.
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19900; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-temp;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  proxy_cache_path {folder}/nginx-cache levels=1:2 keys_zone=auth:10m inactive=10m use_temp_path=off;
  open_file_cache max=1000 inactive=10m;
  open_file_cache_valid 10m;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream api {{ server 127.0.0.1:{api_port}; keepalive 32; }}
  upstream instance1 {{
    server {hosts[0]}:{instance_port}; keepalive 8192; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
  upstream instance2 {{
    server {hosts[1]}:{instance_port}; keepalive 8192; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
  map $http_upgrade $upgraded_connection {{ default upgrade; "" ""; }}
  server {{
    listen 127.0.0.1:{port} backlog=10000;
    auth_request /authorize;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgraded_connection;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_buffer_size 64k;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 128k;
    client_body_buffer_size 256k;
    proxy_read_timeout 1h;
    proxy_send_timeout 1h;
    location /jupyter/1/ {{ set $instance 1; proxy_pass http://instance1; }}
    location /jupyter/2/ {{ set $instance 2; proxy_pass http://instance2; }}
    location = /authorize {{
      internal;
      auth_request off;
      proxy_pass http://api/api/jupyter/instances/$instance;
      proxy_pass_request_body off;
      proxy_pass_request_headers off;
      proxy_set_header Content-Length "";
      proxy_set_header Upgrade "";
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer $cookie_access_token";
      proxy_cache auth;
      proxy_cache_key "$instance $cookie_access_token";
      proxy_cache_valid 200 60s;
      proxy_cache_lock on;
    }}
  }}
}}
"""

_HAPROXY: Final = """
# Tuned: one thread, connections that stay, to the instances too, buffers of 64 KiB (with 16, its default,
# bytes in bulk take twice as much). It only looks whether there is a token.
# `option splice-auto` was tried: it makes no difference to a download, an upload or a 64 KiB answer.
global
  nbthread 1
  maxconn 8500
  tune.bufsize 65536
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  timeout http-request 10s
  timeout http-keep-alive 75s
  option forwardfor
  http-reuse always
frontend browsers
  bind 127.0.0.1:{port} backlog 10000
  maxconn 8500
  http-request deny deny_status 401 unless {{ req.cook(access_token) -m found }}
  use_backend instance1 if {{ path_beg /jupyter/1/ }}
  use_backend instance2 if {{ path_beg /jupyter/2/ }}
backend instance1
  server one {hosts[0]}:{instance_port}
backend instance2
  server one {hosts[1]}:{instance_port}
"""


@contextmanager
def nginx(world: World) -> Iterator[Running]:
    """Run nginx: auth_request to the VISA API, with the answer cached."""
    port = free_port()
    path = world.folder / "nginx.conf"
    path.write_text(_filled(_NGINX, world, port))
    with _running(world, "nginx", [_program("nginx"), "-c", path], port) as running:
        yield running


@contextmanager
def haproxy(world: World) -> Iterator[Running]:
    """Run HAProxy: it checks that there is a token."""
    port = free_port()
    path = world.folder / "haproxy.cfg"
    path.write_text(_filled(_HAPROXY, world, port))
    with _running(world, "haproxy", [_program("haproxy"), "-db", "-f", path], port) as running:
        yield running


@contextmanager
def chp(world: World) -> Iterator[Running]:
    """Run configurable-http-proxy: it looks a route up in its table."""
    port, api_port, secret = free_port(), free_port(), secrets.token_hex(16)
    command: list[str | Path] = [
        _program("node"),
        CHP,
        "--ip=127.0.0.1",
        f"--port={port}",
        "--api-ip=127.0.0.1",
    ]
    command += [f"--api-port={api_port}", "--log-level=error", "--keep-alive-timeout=75000"]
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": secret}
    with _running(world, "chp", command, port, environment) as running:
        running.child.wait_until_listening(api_port)
        for number, host in enumerate(world.hosts, 1):
            _add_route(api_port, secret, f"/jupyter/{number}", f"http://{host}:{INSTANCE_PORT}")
        yield running


def _add_route(api_port: int, secret: str, path: str, target: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api_port, timeout=PATIENCE_S)
    try:
        headers = {"Authorization": f"token {secret}"}
        connection.request("POST", f"/api/routes{path}", json.dumps({"target": target}), headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.CREATED:
        raise Failed(f"chp did not take the route {path}: {status}")


@contextmanager
def _running(
    world: World,
    name: str,
    command: Sequence[str | Path],
    port: int,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    began = time.monotonic()
    with child(name, command, world.folder, cpus=world.proxy_cpu, environment=environment) as running:
        wait(partial(_answers, running, port), f"{name} to answer")
        yield Running(name, port, running, time.monotonic() - began)


def _answers(running: Child, port: int) -> bool:
    """Whether a request is answered, whatever the answer; nobody is authorised to ask for this."""
    running.check()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()


def _filled(template: str, world: World, port: int) -> str:
    return template.format(
        folder=world.folder,
        hosts=world.hosts,
        api_port=world.api_port,
        instance_port=INSTANCE_PORT,
        port=port,
        user=nginx_user(),
    )


def _program(name: str) -> str:
    found = program(name)
    if found is None:
        raise Failed(f"{name} is not installed")
    return found


PROXIES: Final[dict[str, Callable[[World], AbstractContextManager[Running]]]] = {
    "ours": ours,
    "nginx": nginx,
    "haproxy": haproxy,
    "chp": chp,
}

TITLES: Final = {
    "ours": "ours",
    "nginx": "nginx, auth_request cached",
    "haproxy": "HAProxy, cookie check",
    "chp": "configurable-http-proxy",
}


def missing(name: str) -> str | None:
    """Return what is not installed of a proxy, if anything."""
    if name == "chp":
        if program("node") is None:
            return "node"
        return None if CHP.exists() else "configurable-http-proxy"
    return name if name != "ours" and program(name) is None else None


def versions() -> dict[str, str]:
    """Return what the installed proxies say of their versions."""
    asked = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "chp": ["node", str(CHP), "--version"]}
    said = {"ours": __version__}
    for name, (command, *arguments) in asked.items():
        if missing(name) is None:
            ran = subprocess.run(
                [_program(command), *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            said[name] = re.search(r"\d+\.\d+\.\d+\S*", ran.stdout.decode())[0]  # type: ignore[index]
    return said
