import itertools
import threading
from typing import Any

import fakeredis
import pytest
import redis
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from schemas import Provenance, S3Reference, Scores
from tests.unit.clock import Clock
from worker.cache.client import connect, connect_embedded
from worker.cache.score_cache import ScoreCache
from worker.cache.values import CachedScore, ScoreKey
from worker.settings import RedisSettings, SettingsError
from worker.telemetry.metrics import Metrics

HASH = "sha256:" + "ab" * 32
SCORE = CachedScore(Scores(quality=3.1415926535897931, anchors=(0.1, 0.2, 0.4, 0.2, 0.1)), {"fine": b"\x00\x3c" * 512})
KEY = ScoreKey(HASH, None)
VERSIONED = S3Reference(bucket="images", key="a.png", version_id="v1")


class Bench:
    """A cache with everything around it in reach."""

    def __init__(self, **options: Any) -> None:
        self.server = fakeredis.FakeServer()
        self.client = fakeredis.FakeRedis(server=self.server)
        self.registry = CollectorRegistry()
        self.clock = Clock()
        options = {"model_digest": "sha256:" + "01" * 32, "reads_prompts": True, "ttl_seconds": 60, **options}
        self.cache = ScoreCache(self.client, metrics=Metrics(self.registry), clock=self.clock, **options)

    def requests(self, kind: str, result: str) -> float | None:
        return self.registry.get_sample_value("sluice_cache_requests_total", {"kind": kind, "result": result})

    @property
    def is_up(self) -> bool:
        return self.registry.get_sample_value("sluice_cache_up") == 1


def test_a_score_is_found_again_by_content_and_prompt() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {})

    assert bench.cache.get([KEY, ScoreKey(HASH, "cd" * 16), ScoreKey("sha256:" + "ef" * 32, None), KEY]) == [
        SCORE,
        None,
        None,
        SCORE,
    ]
    assert (bench.requests("score", "hit"), bench.requests("score", "miss")) == (2, 2)


def test_a_model_that_judges_prompts_has_a_score_for_each_prompt() -> None:
    cache = Bench().cache
    cat, dog, none = (cache.key(HASH, prompt) for prompt in ("a cat", "a dog", None))
    cache.put({cat: SCORE}, {})

    assert len({cat, dog, none}) == 3
    assert cache.get([cat, dog, none]) == [SCORE, None, None]
    assert cache.key(HASH, "") == none


def test_a_model_that_ignores_prompts_has_one_score_for_all() -> None:
    cache = Bench(reads_prompts=False).cache
    cache.put({cache.key(HASH, "a cat"): SCORE}, {})

    assert cache.get([cache.key(HASH, "a dog"), cache.key(HASH, None)]) == [SCORE, SCORE]


def test_another_model_finds_nothing() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {})
    other = ScoreCache(
        bench.client,
        model_digest="sha256:" + "02" * 32,
        reads_prompts=True,
        ttl_seconds=60,
        metrics=Metrics(CollectorRegistry()),
    )
    assert other.get([KEY]) == [None]


def test_what_a_file_says_is_kept_with_its_score() -> None:
    bench = Bench(provenance="text-1")
    score = SCORE._replace(provenance=Provenance(found=True, generator="comfyui", seed="7"))
    bench.cache.put({KEY: score}, {})
    assert bench.cache.get([KEY]) == [score]
    assert bench.cache.scores([KEY]) == [score._replace(features={})]


def test_a_score_with_the_provenance_of_another_reader_is_not_found() -> None:
    bench = Bench(provenance="text-1")
    bench.cache.put({KEY: SCORE._replace(provenance=Provenance())}, {})
    for identity in ("", "text-2", "c2pa-1-abc"):
        other = ScoreCache(
            bench.client,
            model_digest="sha256:" + "01" * 32,
            reads_prompts=True,
            ttl_seconds=60,
            metrics=Metrics(CollectorRegistry()),
            provenance=identity,
        )
        assert other.scores([KEY]) == [None]
        assert other.get([KEY]) == [None]


@pytest.mark.parametrize(
    "reference",
    [
        VERSIONED,
        S3Reference(bucket="images", key="a.png", etag='"e1"'),
        S3Reference(bucket="images", key="a.png", version_id="v1", etag='"e1"'),
        S3Reference(bucket="images", key="a.png", version_id="null", etag='"e1"'),
    ],
)
def test_a_reference_to_fixed_content_is_known_by_alias(reference: S3Reference) -> None:
    bench = Bench()
    bench.cache.put({}, {reference: HASH})
    assert bench.cache.content_hashes([reference]) == [HASH]


@pytest.mark.parametrize(
    "reference",
    [S3Reference(bucket="images", key="a.png"), S3Reference(bucket="images", key="a.png", version_id="null")],
)
def test_a_reference_whose_content_may_change_is_never_known(reference: S3Reference) -> None:
    bench = Bench()
    bench.cache.put({}, {reference: HASH})
    assert bench.cache.content_hashes([reference]) == [None]
    assert bench.client.dbsize() == 0


def test_aliases_of_different_objects_are_never_mixed_up() -> None:
    bench = Bench()
    bench.cache.put({}, {S3Reference(bucket="b", key="k/v", version_id="e"): HASH})
    others = [
        S3Reference(bucket="b", key="k", version_id="/ve"),
        S3Reference(bucket="b", key="k/v", etag="e"),
        S3Reference(bucket="b", key="k/v", version_id="e", etag="other"),
        S3Reference(bucket="c", key="k/v", version_id="e"),
    ]
    assert bench.cache.content_hashes(others) == [None] * 4


def test_what_is_remembered_expires() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {VERSIONED: HASH})
    assert {bench.client.ttl(key) for key in bench.client.scan_iter()} == {60}


def test_what_redis_has_given_is_answered_from_memory_for_a_while_and_counts_as_a_hit() -> None:
    bench = Bench()
    reference = S3Reference(bucket="b", key="k", etag="1")
    bench.cache.put({KEY: SCORE}, {reference: HASH})
    bench.cache.scores([KEY])
    bench.cache.content_hashes([reference])
    bench.client.flushall()
    other = ScoreKey("sha256:" + "ef" * 32, None)
    (found, missing) = bench.cache.scores([KEY, other])
    assert (found and found.scores, missing) == (SCORE.scores, None)
    assert bench.cache.content_hashes([reference]) == [HASH]
    assert (bench.requests("score", "hit"), bench.requests("alias", "hit")) == (2, 2)
    bench.clock.now += 61
    assert bench.cache.scores([KEY]) == [None]
    assert bench.cache.content_hashes([reference]) == [None]


def test_nothing_asked_costs_nothing() -> None:
    bench = Bench()
    bench.server.connected = False
    assert bench.cache.get([]) == []
    assert bench.cache.content_hashes([]) == []
    bench.cache.put({}, {})
    assert bench.is_up


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x01" + b"\0" * 200])
def test_a_corrupt_value_is_a_miss_and_is_replaced(damage: bytes) -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {VERSIONED: HASH})
    for key in list(bench.client.scan_iter()):
        bench.client.set(key, damage)

    assert bench.cache.get([KEY]) == [None]
    assert bench.cache.content_hashes([VERSIONED]) == [None]
    bench.cache.put({KEY: SCORE}, {VERSIONED: HASH})
    assert bench.cache.get([KEY]) == [SCORE]
    assert bench.cache.content_hashes([VERSIONED]) == [HASH]


def test_a_value_of_another_type_is_a_miss() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {})
    for key in bench.client.scan_iter():
        bench.client.delete(key)
        bench.client.rpush(key, "x")
    assert bench.cache.get([KEY]) == [None]
    assert bench.is_up


def test_an_outage_is_misses_one_log_line_and_one_for_the_end() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {})
    with capture_logs() as logs:
        bench.server.connected = False
        for _ in range(20):
            assert bench.cache.get([KEY]) == [None]
            assert bench.cache.content_hashes([VERSIONED]) == [None]
            bench.cache.put({KEY: SCORE}, {VERSIONED: HASH})
            bench.clock.now += 0.7
        assert not bench.is_up
        bench.server.connected = True
        bench.clock.now += 10
        assert bench.cache.get([KEY]) == [SCORE]
        assert bench.is_up
    assert [entry["event"] for entry in logs] == ["cache_down", "cache_up"]


def test_a_server_that_is_away_is_asked_ever_less_often() -> None:
    bench = Bench()
    asked: list[float] = []
    bench.client.mget = lambda keys: (asked.append(bench.clock.now), 1 / 0)  # type: ignore[method-assign]
    for _ in range(600):
        assert bench.cache.get([KEY]) == [None]
        bench.clock.now += 0.1
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(asked)]
    assert gaps == [1, 2, 4, 8, 10, 10, 10, 10]


def test_a_full_redis_still_answers_and_complains_once() -> None:
    bench = Bench()
    bench.cache.put({KEY: SCORE}, {})
    pipeline = bench.client.pipeline

    def full(**options: bool) -> object:
        raise redis.OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'.")

    with capture_logs() as logs:
        bench.client.pipeline = full  # type: ignore[assignment]
        for _ in range(20):
            bench.cache.put({ScoreKey(HASH, "x"): SCORE}, {})
            assert bench.cache.get([KEY]) == [SCORE]
            bench.clock.now += 1
        bench.client.pipeline = pipeline  # type: ignore[method-assign]
        bench.clock.now += 10
        bench.cache.put({ScoreKey(HASH, "x"): SCORE}, {})
    assert [entry["event"] for entry in logs] == ["cache_writes_down", "cache_writes_up"]
    assert bench.cache.get([ScoreKey(HASH, "x")]) == [SCORE]


def test_the_embedded_cache_forgets_its_oldest_entries() -> None:
    bench = Bench(max_entries=20)  # two for each image
    keys = [ScoreKey(HASH, str(number)) for number in range(50)]
    for key in keys:
        bench.cache.put({key: SCORE}, {})
    assert bench.client.dbsize() == 20
    assert bench.cache.get(keys) == [None] * 40 + [SCORE] * 10


def test_many_threads_may_use_it_at_once() -> None:
    bench = Bench()
    wrong: list[object] = []

    def work(number: int) -> None:
        key = ScoreKey(HASH, str(number))
        for _ in range(50):
            bench.cache.put({key: SCORE}, {})
            if bench.cache.get([key]) != [SCORE]:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_embedded_caches_are_separate() -> None:
    def cache(client: redis.Redis) -> ScoreCache:
        return ScoreCache(
            client, model_digest="m", reads_prompts=True, ttl_seconds=60, metrics=Metrics(CollectorRegistry())
        )

    cache(connect_embedded()).put({KEY: SCORE}, {})
    assert cache(connect_embedded()).get([KEY]) == [None]


@pytest.mark.parametrize("url", ["redis://host:hunter2", "redis://:hunter2@[::1"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"redis\.url is not the address") as refusal:
        connect(RedisSettings(url=SecretStr(url)))
    assert "hunter2" not in str(refusal.value)
