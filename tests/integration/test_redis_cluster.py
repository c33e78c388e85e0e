"""The score cache and the crash markers on a real Redis Cluster of three servers."""

from collections.abc import Iterator

import pytest
import redis
from prometheus_client import CollectorRegistry

from ops.dev.ports import free_ports
from ops.dev.redis_cluster import RedisClusterServers
from schemas import S3Reference, Scores
from worker.cache.client import CacheClient, connect, connect_server
from worker.cache.score_cache import ScoreCache
from worker.cache.values import CachedScore, ScoreKey
from worker.intake.crash_markers import Marker, RedisMarkers
from worker.intake.log import Partition
from worker.preflight.finding import CheckStatus
from worker.preflight.server_checks import check_redis
from worker.settings import RedisSettings, SettingsError
from worker.telemetry.metrics import Metrics

pytestmark = pytest.mark.integration

NUMBERS = range(60)
SCORE = CachedScore(Scores(quality=3.5, anchors=(0.1, 0.2, 0.4, 0.2, 0.1), coarse_share=0.5), {"fine": b"\0\x3c" * 512})
KEYS = [ScoreKey(f"sha256:{number:064x}", None) for number in NUMBERS]
REFERENCES = [S3Reference(bucket="images", key=f"{number}.png", etag=f'"{number}"') for number in NUMBERS]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers(tmp_path_factory.mktemp("redis-cluster"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def _settings(nodes: list[str]) -> RedisSettings:
    return RedisSettings.model_validate({"cluster": nodes, "timeout_seconds": 2.0})


def _cache(client: CacheClient) -> ScoreCache:
    return ScoreCache(
        client, model_digest="m", reads_prompts=True, ttl_seconds=60, metrics=Metrics(CollectorRegistry())
    )


def test_scores_lie_on_all_nodes_and_are_found_in_one_call(cluster: RedisClusterServers) -> None:
    client = connect(_settings(cluster.addresses[:1]))  # it names the others
    cache = _cache(client)
    hashes = {reference: key.content_hash for reference, key in zip(REFERENCES, KEYS, strict=True)}
    cache.put(dict.fromkeys(KEYS, SCORE), hashes)
    assert cache.get(KEYS) == [SCORE] * len(KEYS)
    assert cache.content_hashes(REFERENCES) == list(hashes.values())
    held = []
    for node in cluster.nodes:
        with node.client() as each:
            held.append(each.dbsize())
    assert sum(held) == 3 * len(KEYS)
    assert min(held) > 0
    client.close()


def test_crash_markers_are_kept_and_taken_back(cluster: RedisClusterServers) -> None:
    client = connect(_settings(cluster.addresses))
    markers, partition = RedisMarkers(client, "group"), Partition("images", 3)
    markers.write(partition, Marker(holder="process"))
    found = markers.read(partition)
    assert found is not None
    assert found.holder == "process"
    markers.remove(partition)
    assert markers.read(partition) is None
    client.close()


def test_the_doctor_checks_a_cluster(cluster: RedisClusterServers) -> None:
    findings = list(check_redis(_settings(cluster.addresses)))
    assert [finding.status for finding in findings] == [CheckStatus.OK] * 3, findings


def test_a_cluster_that_is_away_costs_hits_only() -> None:
    (port,) = free_ports(1)
    client = connect(_settings([f"127.0.0.1:{port}"]))
    cache = _cache(client)
    cache.put({KEYS[0]: SCORE}, {})
    assert cache.get(KEYS[:1]) == [None]
    with pytest.raises(redis.ConnectionError, match="Redis Cluster"):
        client.ping()


def test_the_desk_refuses_a_cluster_and_says_what_it_needs() -> None:
    with pytest.raises(
        SettingsError, match=r"redis\.cluster: the review desk cannot keep its index on a Redis Cluster"
    ):
        connect_server(_settings(["127.0.0.1:7000"]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sentinels": ["h:1"], "sentinel_primary": "p"}, "sentinels and cluster are both set"),
        ({"url": "redis://h/2"}, "has only database 0"),
        ({"url": "unix:///tmp/redis.sock"}, "url is a unix:// socket"),
    ],
)
def test_settings_that_do_not_go_with_a_cluster_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RedisSettings.model_validate({"cluster": ["h:1"], **settings})
