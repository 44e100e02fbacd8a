"""Asking the admin listener, as an operator's program does.

admin = AdminClient(proxy.admin_port)
admin.get("/health/ready").json["status"]
admin.metrics()["requests_total", "Jupyter", "GET", "200"]
"""

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from visa_jupyter_proxy.metrics import METRICS, PREFIX

_PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Answer:
    """A response; field names in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class AdminClient:
    """Makes each request on a connection of its own."""

    def __init__(self, port: int, token: str | None = None, host: str = "127.0.0.1") -> None:
        self._port = port
        self._host = host
        self._token = token

    def get(self, path: str, method: str = "GET", **fields: str) -> Answer:
        """Ask; `Sec_Fetch_Site` stands for `Sec-Fetch-Site`."""
        given = {name.replace("_", "-"): value for name, value in fields.items()}
        if self._token is not None:
            given.setdefault("Authorization", f"Bearer {self._token}")
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_S)
        with closing(connection):
            connection.request(method, path, headers=given)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    def status(self, path: str, method: str = "GET") -> int:
        """Ask, and leave without the body, which may have no end."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_S)
        with closing(connection):
            connection.request(method, path)
            return connection.getresponse().status

    def fields(self, path: str) -> dict[str, str]:
        """Ask, and leave with the fields alone; names in lower case."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_S)
        with closing(connection):
            connection.request("GET", path)
            return {name.lower(): value for name, value in connection.getresponse().getheaders()}

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Scrape: name without prefix, and the labels' values in their order -> value.

        Of histograms there are `..._count`, `..._sum` and `..._bucket`, with `le` as the last label.
        """
        answer = self.get("/metrics")
        assert 200 == answer.status, answer.body
        return samples(answer.body.decode())


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Read what Prometheus would read."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix(PREFIX)
        metric = METRICS.get(name) or METRICS[f"{name}_total"]
        for sample in family.samples:
            labels = [sample.labels[label] for label in metric.labels]
            labels += [sample.labels["le"]] if "le" in sample.labels else []
            key = (sample.name.removeprefix(PREFIX), *labels)
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def total(found: Mapping[tuple[str, ...], float], *prefix: str) -> float:
    """Add up all samples whose name and first labels these are."""
    return sum(value for key, value in found.items() if key[: len(prefix)] == prefix)
