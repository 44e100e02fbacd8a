"""Behind a real nginx that keeps its connections to us: no user gets what an instance has sent to another."""

import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from support.client import RawClient, get
from support.instance import Connection, Instance, ok
from support.proxy import RunningProxy
from support.visa_api import Hold
from wire.conftest import Wire

_CONFIGURATION = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
  uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  upstream proxy {{ server 127.0.0.1:{proxy_port}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://proxy; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 5;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


def _nginx() -> str:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return program


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, proxy: RunningProxy) -> Iterator[int]:
    """Run nginx, with one kept connection, and give its port."""
    program, directory = _nginx(), tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(directory=directory, proxy_port=proxy.port, port=port), encoding="ascii"
    )
    command = [program, "-e", str(directory / "error.log"), "-c", str(configuration)]
    with subprocess.Popen(command) as nginx:
        try:
            proxy.wait(lambda: _answers(port))
            yield port
        finally:
            nginx.send_signal(signal.SIGTERM)


def _answers(port: int) -> bool:
    try:
        with RawClient(port) as client:
            return client.ask(b"GET / HTTP/1.1\r\nHost: v\r\n\r\n").status == 404
    except OSError:
        return False


@pytest.mark.parametrize("interim", ["103 Early Hints", "100 Continue"])
def test_an_interim_response_is_not_taken_for_the_whole_answer(wire: Wire, front: int, interim: str) -> None:
    """Nginx takes a 1xx to HEAD for all of it (seen with 1.22), and gives the connection to the next user."""
    hold = Hold()

    def attack(connection: Connection) -> None:
        connection.request()
        connection.send(f"HTTP/1.1 {interim}\r\n\r\n".encode())
        assert hold.wait()
        connection.send(b"HTTP/1.1 200 OK\r\nX-From: attacker\r\nContent-Length: 99\r\n\r\n")

    wire.instance.answer(ok(b"mine"))
    with Instance(wire.instance.port) as hostile, RawClient(front) as attacker, RawClient(front) as victim:
        number, token = wire.number + 700_000, f"attacker-{wire.number}"
        wire.api.user(token, token)
        wire.api.instance(number, owner=token, ip=hostile.host)
        hostile.play(attack)
        attacker.send(get(f"/jupyter/{number}/x", method="HEAD", token=token))
        hostile.wait(lambda: hostile.requests)
        # In vain, when all is well: nothing tells that nginx might have got something.
        select.select([attacker.sock], [], [], 0.3)
        victim.send(wire.get())
        try:
            victim.sock.settimeout(1)
            answer = victim.response()
        except TimeoutError:
            hold.release()
            victim.sock.settimeout(20)
            answer = victim.response()
        hold.release()
    assert (200, b"mine", []) == (answer.status, answer.body, answer.all("x-from"))
