"""The cache on a real Redis, which is killed, stopped in its tracks, filled up and brought back."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from ops.dev.servers import RedisServer
from schemas import S3Reference, Scores
from worker.cache.client import connect
from worker.cache.score_cache import ScoreCache
from worker.cache.values import CachedScore, ScoreKey
from worker.settings import RedisSettings
from worker.telemetry.metrics import Metrics

TIMEOUT = 0.3


def score(number: int) -> CachedScore:
    features = {"coarse": number.to_bytes(4, "little") * 256, "fine": b"\x01\x3c" * 512}
    anchors = (0.1, 0.2, 0.3, 0.3, 0.1)
    return CachedScore(Scores(quality=1 + number % 4 + 1 / 3, anchors=anchors, coarse_share=0.5), features)


def key(number: int) -> ScoreKey:
    return ScoreKey(f"sha256:{number:064x}", None)


def reference(number: int) -> S3Reference:
    return S3Reference(bucket="images", key=f"{number}.png", etag=f'"{number}"')


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ScoreCache]:
    settings = RedisSettings(url=SecretStr(redis_server.url), timeout_seconds=TIMEOUT)
    client = connect(settings)
    yield ScoreCache(client, model_digest="m", reads_prompts=True, ttl_seconds=60, metrics=Metrics(CollectorRegistry()))
    client.close()


def eventually_finds(cache: ScoreCache, number: int) -> bool:
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        cache.put({key(number): score(number)}, {})
        if cache.get([key(number)]) == [score(number)]:
            return True
        time.sleep(0.1)
    return False


def test_scores_and_aliases_are_shared_between_workers(cache: ScoreCache, redis_server: RedisServer) -> None:
    numbers = range(500)
    cache.put({key(n): score(n) for n in numbers}, {reference(n): key(n).content_hash for n in numbers})

    other = ScoreCache(
        connect(RedisSettings(url=SecretStr(redis_server.url))),
        model_digest="m",
        reads_prompts=True,
        ttl_seconds=60,
        metrics=Metrics(CollectorRegistry()),
    )
    hashes = other.content_hashes([reference(n) for n in numbers])
    assert hashes == [key(n).content_hash for n in numbers]
    assert other.get([key(n) for n in numbers]) == [score(n) for n in numbers]


def test_a_batch_of_500_is_one_quick_round_trip(cache: ScoreCache) -> None:
    keys = [key(n) for n in range(500)]
    cache.put({key(n): score(n) for n in range(500)}, {})
    cache.get(keys)
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        cache.get(keys)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05, "10 ms on an idle machine; the margin is for a busy one"


def test_a_redis_that_restarted_between_calls_is_not_an_outage(cache: ScoreCache, redis_server: RedisServer) -> None:
    cache.put({key(1): score(1)}, {})
    with capture_logs() as logs:
        redis_server.kill()
        redis_server.start()
        cache.put({key(2): score(2)}, {})
        assert cache.get([key(1), key(2)]) == [None, score(2)]
    assert logs == []


def test_a_redis_killed_in_mid_work_costs_misses_and_comes_back(cache: ScoreCache, redis_server: RedisServer) -> None:
    stop = threading.Event()
    slowest = [0.0] * 4
    wrong: list[object] = []

    def work(thread: int) -> None:
        number = thread
        while not stop.is_set():
            started = time.monotonic()
            cache.put({key(number): score(number)}, {reference(number): key(number).content_hash})
            if cache.get([key(number)])[0] not in (None, score(number)):
                wrong.append(number)
            slowest[thread] = max(slowest[thread], time.monotonic() - started)
            number += 4
            time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    with capture_logs() as logs:
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        redis_server.kill()
        time.sleep(1.5)
        redis_server.start()
        came_back = eventually_finds(cache, 999_999)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert came_back
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
    assert max(slowest) < 4 * TIMEOUT + 1
    told = [entry["event"] for entry in logs]
    # A restarted server on a busy machine may miss a timeout once more, and go down and up again.
    assert told == ["cache_down", "cache_up"] * (len(told) // 2)
    assert 2 <= len(told) <= 8


def test_a_redis_that_hangs_never_keeps_a_caller_longer_than_its_timeout(
    cache: ScoreCache, redis_server: RedisServer
) -> None:
    cache.put({key(1): score(1)}, {})
    assert redis_server.pid is not None
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with capture_logs() as logs:
            calls = 0
            while time.monotonic() - started < 3:
                called = time.monotonic()
                assert cache.get([key(1)]) == [None]
                cache.put({key(2): score(2)}, {})
                assert time.monotonic() - called < 3 * TIMEOUT
                calls += 1
        assert calls > 1000, "between the probes nobody waits"
        assert [entry["event"] for entry in logs] == ["cache_down"]
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert eventually_finds(cache, 3)
    assert cache.get([key(1)]) == [score(1)]


def test_a_full_redis_goes_on_answering(cache: ScoreCache, redis_server: RedisServer) -> None:
    cache.put({key(1): score(1)}, {})
    admin = connect(RedisSettings(url=SecretStr(redis_server.url)))
    admin.config_set("maxmemory", "1")
    try:
        with capture_logs() as logs:
            for number in range(2, 20):
                cache.put({key(number): score(number)}, {})
                assert cache.get([key(1), key(number)]) == [score(1), None]
        assert [entry["event"] for entry in logs] == ["cache_writes_down"]
    finally:
        admin.config_set("maxmemory", "0")
        admin.close()
    assert eventually_finds(cache, 20)


def test_a_server_that_speaks_something_else_is_an_outage() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client = connect(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0"), timeout_seconds=TIMEOUT))
    cache = ScoreCache(
        client, model_digest="m", reads_prompts=True, ttl_seconds=60, metrics=Metrics(CollectorRegistry())
    )
    with capture_logs() as logs:
        assert cache.get([key(1)]) == [None]
    assert [entry["event"] for entry in logs] == ["cache_down"]
    listener.close()
