"""Alerts, runbooks and dashboards fit each other and the worker's metrics."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from ops.grafana.panels import DASHBOARDS
from worker.review.queue_metrics import QueueMetrics
from worker.review.retention_metrics import RetentionMetrics
from worker.review.webhook_delivery import delivery_counter
from worker.settings.review import ReviewSettings
from worker.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]
RULES = ROOT / "ops/prometheus/rules.yaml"
RUNBOOKS = ROOT / "ops/runbooks"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
EXPRESSIONS = [
    *(rule["expr"] for rule in rules()),
    *(
        query.expression
        for dashboard in DASHBOARDS
        for _, panels in dashboard.rows
        for panel in panels
        for query in panel.queries
    ),
]


def test_the_rules_are_sound_and_each_alert_fires_when_it_must() -> None:
    tests = subprocess.run(
        ["promtool", "test", "rules", str(ROOT / "ops/prometheus/rules_test.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    config = ["promtool", "check", "config", str(ROOT / "ops/prometheus/prometheus.yaml")]
    assert subprocess.run(config, capture_output=True, check=False).returncode == 0


def test_each_alert_is_tested() -> None:
    tested = yaml.safe_load((ROOT / "ops/prometheus/rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_severity_and_a_runbook_that_says_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    runbook = (ROOT / alert["annotations"]["runbook"]).read_text()
    for heading in ("## What it means", "## How to see it", "## What to do", "## What never to do"):
        assert heading in runbook


def test_no_runbook_is_without_an_alert() -> None:
    named = {Path(alert["annotations"]["runbook"]).name for alert in ALERTS}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == named | {"README.md"}


def test_rules_and_panels_ask_only_for_metrics_that_workers_and_the_desk_have() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    registry.register(delivery_counter())
    registry.register(RetentionMetrics(lambda: datetime.now(UTC)))
    registry.register(QueueMetrics(lambda: [], ReviewSettings(), lambda: datetime.now(UTC)))
    known = {sample.name for metric in registry.collect() for sample in metric.samples}
    known |= {
        f"{metric.name}{end}" for metric in registry.collect() for end in ("", "_total", "_sum", "_count", "_bucket")
    }
    asked = {name for text in EXPRESSIONS for name in re.findall(r"\bsluice_[a-z_]+", text)}
    assert asked <= known


def test_the_dashboards_are_as_their_definitions_make_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.grafana", "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
