"""Each drill of `make drills` once, all on one stream."""

from collections.abc import Iterator

import pytest

from ops.dev.servers import KafkaServer, RedisServer
from ops.drills.bench import Bench
from ops.drills.faults import DRILLS, SETTINGS, Drill
from ops.drills.table import outcome

PARTITIONS = 100


@pytest.fixture(scope="module")
def bench(
    _kafka_server: KafkaServer, _redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """One stream with its workers for all drills: starting them anew for each would take longer than the drills."""
    for server in (_kafka_server, _redis_server):
        if server.pid is None:
            server.start()
    folder = tmp_path_factory.mktemp("drills")
    with Bench(_kafka_server, _redis_server, folder, partitions=PARTITIONS, **SETTINGS) as opened:
        yield opened


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("drill", [pytest.param(drill, id=drill.name) for drill in DRILLS])
def test_each_event_is_judged_once_through_the_drill(bench: Bench, drill: Drill) -> None:
    drill.run(bench, 1)
    assert bench.recoveries, "the drill waits until what was published before the fault's end is judged"
    assert bench.counter.twice() == set()


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_after_all_drills_nothing_is_lost_or_repeated(bench: Bench) -> None:
    bench.finish()
    row = outcome(DRILLS[-1], len(DRILLS), bench)
    assert row.events > 100
    assert row.kept_the_promise, row
