"""Every panel shows something and every rule can be evaluated, on a real Prometheus that scrapes a worker at work."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.dev.ports import free_ports
from ops.dev.prometheus import PrometheusServer
from ops.grafana.panels import DASHBOARDS
from tests.unit.telemetry.otlp_collector import Collector, running_collector
from worker.samples.sample import SAMPLE_IMAGES

pytestmark = pytest.mark.integration

COMMAND = [str(Path(sys.executable).with_name("sluice"))]
PANELS = [panel for dashboard in DASHBOARDS for _, panels in dashboard.rows for panel in panels]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[PrometheusServer]:
    folder = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "SLUICE_TELEMETRY__METRICS_PORT": str(port),
        "SLUICE_TELEMETRY__TRACES_ENDPOINT": collector.endpoint,
        "SLUICE_TELEMETRY__TRACES_SHARE": "1",
    }
    data = str(folder / "sluice-data")
    worker = subprocess.Popen(
        [*COMMAND, "up", "--embedded", "--data", data], env=environment, stderr=subprocess.DEVNULL
    )
    server = PrometheusServer(folder, [port])
    try:
        server.start()
        _wait_for_a_scrape(server)  # a rate counts only what happens after the first one
        for _ in range(2):  # the second time from the cache
            subprocess.run([*COMMAND, "submit", str(SAMPLE_IMAGES), "--data", data], check=True, capture_output=True)
            time.sleep(2)
        yield server
    finally:
        server.stop()
        worker.terminate()
        worker.wait(30)


def test_each_panel_shows_the_worker_at_work(prometheus: PrometheusServer) -> None:
    deadline = time.monotonic() + 60
    empty = {panel.title: panel for panel in PANELS}
    while empty and time.monotonic() < deadline:
        time.sleep(1)
        empty = {
            title: panel
            for title, panel in empty.items()
            if any(_is_empty(prometheus.values(query.expression.replace("$job", "sluice"))) for query in panel.queries)
        }
    assert not empty, sorted(empty)


def test_each_rule_can_be_evaluated_and_none_fires_at_a_worker_that_is_well(prometheus: PrometheusServer) -> None:
    deadline = time.monotonic() + 30
    while True:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert {rule["name"]: rule["health"] for rule in rules if rule["health"] != "ok"} == {}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


def test_the_worker_sends_the_traces_of_its_events_to_a_collector(
    prometheus: PrometheusServer, collector: Collector
) -> None:
    deadline = time.monotonic() + 30
    wanted = {"process images.in", "fetch", "decode", "engine", "policy", "commit"}
    while not wanted <= {span.name for span in collector.spans} and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {span.name for span in collector.spans} == wanted
    assert collector.services == {"sluice-worker"}


def _wait_for_a_scrape(server: PrometheusServer) -> None:
    deadline = time.monotonic() + 60
    while not server.values("sluice_events_total"):
        assert time.monotonic() < deadline, "the worker was never scraped"
        time.sleep(0.2)


def _is_empty(values: list[float]) -> bool:
    return not values or all(value != value for value in values)  # NaN: a ratio of nothing
