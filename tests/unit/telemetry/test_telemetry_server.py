import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from worker.telemetry import server as telemetry
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


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=30)


def is_cut(client: socket.socket) -> bool:
    """Waits for the server to end the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + seconds
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.02)
    return holds()


def threads() -> int:
    """That serve connections."""
    return sum("process_request" in thread.name for thread in threading.enumerate())


def test_silent_clients_keep_nobody_waiting_and_take_few_threads() -> None:
    with serving() as url, ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(100)]
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
        assert all(is_cut(client) for client in clients[: 100 - telemetry.CONNECTIONS])
        assert within(30, lambda: threads() <= telemetry.CONNECTIONS)


def test_a_client_that_sends_a_little_at_a_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "SECONDS", 0.5)
    with serving() as url, connected(url) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")

        def refuses_more() -> bool:
            try:
                client.sendall(b"X-More: 1\r\n")
            except ConnectionError:
                return True
            return False

        assert within(30, refuses_more)


def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    series = Gauge("series", "Much to tell.", ["name"], registry=registry)
    for number in range(10_000):
        series.labels(f"{number:01000}")  # 10 MB: more than sockets hold
    server = TelemetryServer("127.0.0.1", 0, registry, Health)
    try:
        with connected(f"http://127.0.0.1:{server.port}") as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert client.recv(1) == b"H"
            assert threads() > 0
            monkeypatch.setattr(telemetry, "SECONDS", 0.5)
            assert within(30, lambda: threads() == 0)
    finally:
        server.close()


def test_a_server_that_closes_lets_its_clients_go() -> None:
    with serving() as url:
        client = connected(url)
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
    with client:
        assert is_cut(client)


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
