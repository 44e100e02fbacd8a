"""Alerts and the dashboard: read by Prometheus's own tool, and every metric and label in them exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from visa_jupyter_proxy.diagnosis.advice import ADVICE
from visa_jupyter_proxy.metrics import METRICS, PREFIX

_DEPLOY = Path(__file__).parent.parent / "deploy"
_ALERTS = _DEPLOY / "prometheus" / "alerts.yml"
_DASHBOARD: dict[str, Any] = json.loads((_DEPLOY / "grafana" / "visa-jupyter-proxy.json").read_text())
_RULES: list[dict[str, Any]] = yaml.safe_load(_ALERTS.read_text())["groups"][0]["rules"]

ERRORS = {kind.error for kind in ADVICE}

_OF_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate"}


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed:  apt-get install prometheus")
    return subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)


def _queries() -> Iterator[str]:
    """Give every query of the dashboard, with what Grafana puts in place of its variables."""
    for panel in _DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield _filled(target["expr"])
    for annotation in _DASHBOARD["annotations"]["list"]:
        yield _filled(annotation["expr"])


def _filled(query: str) -> str:
    return query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$node", ".*")


def _uses(query: str) -> Iterator[tuple[str, set[str]]]:
    """Give each metric in a query with the labels that are asked of it."""
    for name, selector in re.findall(rf"\b({PREFIX}\w+)(?:\{{([^}}]*)\}})?", query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))


def _metric(name: str) -> str:
    """Give the metric of a series: a histogram has three."""
    plain = name.removeprefix(PREFIX)
    whole = re.sub(r"_(?:bucket|sum|count)$", "", plain)
    return whole if whole in METRICS and METRICS[whole].kind == "histogram" else plain


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in _RULES), *_queries()])
def test_every_metric_and_label_exists(query: str) -> None:
    """As `metrics.py` has them; what is grouped by is among the labels as well."""
    uses = [*_uses(query)]
    assert uses or query.startswith("up{")
    labels = set(_OF_PROMETHEUS)
    for name, asked in uses:
        metric = METRICS[_metric(name)]
        assert set() == asked - {*metric.labels, *_OF_PROMETHEUS}
        assert (metric.kind == "histogram") == (_metric(name) != name.removeprefix(PREFIX))
        labels |= set(metric.labels)
    for grouped in re.findall(r"\b(?:by|ignoring|on|without) \(([^)]*)\)", query):
        assert set() == set(re.split(r",\s*", grouped)) - labels


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in _RULES), *_queries()])
def test_every_value_of_a_label_exists(query: str) -> None:
    """One that is written out is what the meaning of the metric names, or an error's name."""
    for name, selector in re.findall(rf"\b({PREFIX}\w+)\{{([^}}]*)\}}", query):
        for label, value in re.findall(r'(\w+)!?="([^"]*)"', selector):
            meant = re.findall(r"\w+", METRICS[_metric(name)].help)
            assert value in meant or value in ERRORS or (label == "code" and value.isdigit()), (name, value)


def test_every_name_that_is_asked_for_exists() -> None:
    """By the dashboard, to offer jobs and nodes."""
    for variable in _DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            ((name, _),) = _uses(query)
            assert _metric(name) in METRICS
            assert re.search(r", (?:job|instance)\)$", query)


def test_every_label_in_a_legend_is_in_its_query() -> None:
    """Otherwise a legend is empty."""
    for panel in _DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
                is_grouped = any(label in re.split(r",\s*", one) for one in grouped)
                assert is_grouped or not grouped, (panel["title"], label)


def test_the_alerts_are_what_prometheus_reads() -> None:
    """And they are raised when they have to be, and not otherwise."""
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", _ALERTS)
    assert 0 == done.returncode, done.stdout + done.stderr
    done = _promtool("test", "rules", _DEPLOY / "prometheus" / "alerts.test.yml")
    assert 0 == done.returncode, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    """Each stays silent when all is well, and all are raised when nothing is."""
    well, ill = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]
    names = [rule["alert"] for rule in _RULES]
    assert sorted(names) == sorted(one["alertname"] for one in well["alert_rule_test"])
    (raised,) = ill["promql_expr_test"]
    assert [{"value": len(names)}] == raised["exp_samples"]


def test_every_alert_says_what_happens() -> None:
    """A name of ours, how severe, and two sentences; what to do stands among the incidents."""
    incidents = (_DEPLOY.parent / "docs" / "operating" / "incidents.md").read_text()
    for rule in _RULES:
        assert f"`{rule['alert']}`" in incidents
        assert rule["alert"].startswith("VisaJupyterProxy")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == set(rule["annotations"])


def test_the_dashboard_is_what_prometheus_reads(tmp_path: Path) -> None:
    """Each of its queries is one of PromQL."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(_queries())]
    assert len(rules) > 30
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = _promtool("check", "rules", "--lint=none", path)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_dashboard_asks_whatever_prometheus_it_is_given() -> None:
    """No panel names a data source of ours, no two have the same place or number."""
    panels = _DASHBOARD["panels"]
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in panels if "datasource" in panel}
    assert len(panels) == len({panel["id"] for panel in panels})
    assert len(panels) == len({(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels})
