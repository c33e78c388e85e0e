import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from worker.telemetry.metrics import Metrics
from worker.telemetry.server import Health, TelemetryServer, TelemetryServerError


@contextmanager
def serving(health: Callable[[], Health] = Health, host: str = "127.0.0.1") -> Iterator[str]:
    registry = CollectorRegistry()
    Metrics(registry).records_polled.inc(3)
    server = TelemetryServer(host, 0, registry, health)
    try:
        yield f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
    finally:
        server.close()


def test_prometheus_reads_the_metrics() -> None:
    with serving() as url:
        answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "sluice_records_polled_total 3.0" in answer.text


def test_a_healthy_worker_answers_200() -> None:
    with serving() as url:
        answer = httpx.get(f"{url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"healthy": True, "reasons": []})


def test_a_sick_worker_answers_503_and_says_why() -> None:
    with serving(lambda: Health(False, ("images.in-3: no progress for 61 s",))) as url:
        answer = httpx.get(f"{url}/healthz")
    assert answer.status_code == 503
    assert answer.json() == {"healthy": False, "reasons": ["images.in-3: no progress for 61 s"]}


def test_a_health_check_that_fails_is_not_healthy() -> None:
    def broken() -> Health:
        raise RuntimeError("a secret")

    with serving(broken) as url:
        answer = httpx.get(f"{url}/healthz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the health check failed: RuntimeError"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metricsx", 404), ("POST", "/healthz", 405), ("POST", "/metrics", 405)],
)
def test_other_requests_are_refused(method: str, path: str, status: int) -> None:
    with serving() as url:
        assert httpx.request(method, url + path).status_code == status


def test_a_silent_client_does_not_keep_others_waiting() -> None:
    with serving() as url, socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))):
        assert httpx.get(f"{url}/healthz", timeout=2).status_code == 200


def test_ipv6_addresses_are_served() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with serving(host="::1") as url:
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_taken_port_is_told_with_the_setting_to_change() -> None:
    with serving() as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(TelemetryServerError, match=rf"127\.0\.0\.1:{port}.*telemetry\.metrics_port"):
            TelemetryServer("127.0.0.1", port, CollectorRegistry(), Health)
