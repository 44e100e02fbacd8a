"""A real Prometheus with the scrape configuration and the alerts of `deploy/`, set up as operators do."""

import json
import re
import shutil
import socket
import subprocess
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from process.conftest import Place, request
from process.test_workers import worker_of
from support.running_demo import eventually
from test_monitoring import _ALERTS, _RULES, _queries

ADMIN_TOKEN: Final = "0123456789abcdef"


class Prometheus:
    """One that scrapes every second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def value(self, query: str) -> float | None:
        """Give the value of what has one series, or None when it has none, or Prometheus is not there yet."""
        try:
            found = self.ask(f"/query?query={urllib.parse.quote(query)}")["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    def ask(self, path: str) -> Any:
        """Ask its API; a query that it does not understand raises."""
        with urllib.request.urlopen(self._url + path) as answer:
            return json.load(answer)["data"]


@contextmanager
def _prometheus(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed:  apt-get install prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(60)


def _scrape_configuration() -> list[dict[str, Any]]:
    """Read what the head of alerts.yml has operators write."""
    head = re.findall(r"^#   (.*)$", _ALERTS.read_text(), re.MULTILINE)
    jobs: list[dict[str, Any]] = yaml.safe_load(textwrap.dedent("\n".join(head)))
    return jobs


@pytest.mark.timeout(300)
def test_two_workers_add_up(place: Place) -> None:
    """What was sent is what is counted; the token is sent, alerts are loaded, each query can be answered."""
    proxy = place.start(WORKERS="2", ADMIN_TOKEN=ADMIN_TOKEN)
    token = place.directory / "token"
    token.write_text(ADMIN_TOKEN)
    (job,) = _scrape_configuration()
    assert "/etc/prometheus/visa-jupyter-proxy-token" == job["authorization"]["credentials_file"]
    job["authorization"]["credentials_file"] = str(token)
    job["static_configs"] = [{"targets": [f"127.0.0.1:{proxy.admin_port}"]}]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    whole = {"global": every, "rule_files": [str(_ALERTS)], "scrape_configs": [job]}
    clients = [place.client(proxy) for _ in range(6)]
    with _prometheus(place.directory / "prometheus", whole) as prometheus:
        eventually("it is scraped", lambda: prometheus.value('up{job="visa-jupyter-proxy"}') == 1)
        for client in clients * 5:
            assert 200 == client.ask(request()).status
        assert 2 == len({worker_of(proxy, client) for client in clients})
        counted = 'sum(visa_jupyter_proxy_requests_total{code="200"})'
        eventually("all are counted", lambda: prometheus.value(counted) == 30)
        assert 2 == prometheus.value('visa_jupyter_proxy_workers{state="serving"}')
        (group,) = prometheus.ask("/rules")["groups"]
        assert [rule["alert"] for rule in _RULES] == [rule["name"] for rule in group["rules"]]
        for query in _queries():
            prometheus.ask(f"/query?query={urllib.parse.quote(query)}")
        errors = next(query for query in _queries() if 'code!="503"' in query)

        def one_more() -> bool:
            assert 200 == place.client(proxy).ask(request()).status
            return prometheus.value(errors) == 0

        eventually("no errors are 0, not nothing", one_more)
