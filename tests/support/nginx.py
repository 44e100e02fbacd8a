"""A real nginx with the files of `deploy/nginx`, as an operator would install them: TLS on a free port.

with running_nginx(folder, proxy_port) as nginx:
    nginx.port, nginx.url, nginx.context      # what a client trusts
    nginx.log                                 # its access log
"""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import trustme

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy" / "nginx"

_PATIENCE_S: Final = 60.0

_MAIN: Final = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/upstream.conf;
  include {folder}/http.conf;
  include {folder}/visa.conf;
}}
"""


@dataclass
class Nginx:
    """An nginx that accepts connections."""

    folder: Path
    port: int
    context: ssl.SSLContext

    @property
    def url(self) -> str:
        """Base URL, as a browser on this machine writes it."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What has been logged of requests."""
        return (self.folder / "access.log").read_text()

    def connect(self) -> ssl.SSLSocket:
        """Connect by TLS."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE_S)
        return self.context.wrap_socket(raw, server_hostname="127.0.0.1")


def program() -> str:
    """Find nginx; skip the test where there is none."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed:  apt-get install nginx-light")
    return found


@contextmanager
def running_nginx(folder: Path, proxy_port: int) -> Iterator[Nginx]:
    """Run nginx in front of the proxy at `proxy_port`; it must not complain."""
    nginx = program()
    folder.mkdir()
    port = _install(folder, proxy_port)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "visa.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    process = subprocess.Popen([nginx, "-c", folder / "nginx.conf", "-p", folder])
    try:
        running = Nginx(folder, port, context)
        _wait_until_it_listens(process, running)
        yield running
        assert "" == (folder / "error.log").read_text()
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _install(folder: Path, proxy_port: int) -> int:
    """Write the files with the places of this machine; return the port."""
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        port, plain = int(free.getsockname()[1]), int(other.getsockname()[1])
    changes = {
        "upstream.conf": {"server 127.0.0.1:8088;": f"server 127.0.0.1:{proxy_port};"},
        "http.conf": {},
        "locations.conf": {},
        "visa.conf": {
            "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "    listen [::]:443 ssl http2;\n": "",
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "    listen [::]:80;\n": "",
            "/etc/nginx/tls/visa.pem": f"{folder}/visa.pem",
            "/etc/nginx/tls/visa.key": f"{folder}/visa.pem",
            "/var/log/nginx/access.log": f"{folder}/access.log",
            "/etc/nginx/visa-jupyter-proxy/": f"{folder}/",
            "/etc/nginx/visa.d/": f"{folder}/visa.d/",
        },
    }
    for name, places in changes.items():
        text = (DEPLOY / name).read_text()
        for theirs, ours in places.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        (folder / name).write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # nobody else reads a test's folder
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
    return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], nginx: Nginx) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        assert process.poll() is None, (nginx.folder / "error.log").read_text()
        try:
            nginx.connect().close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.02)
        else:
            return
