"""Each kind of fault of `make drills` once: those on Kafka on one stream, each on the embedded log on its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.dev.servers import KafkaServer, RedisServer, S3Server
from ops.drills import retry_topic_drills
from ops.drills.bench import Bench
from ops.drills.bench_opening import opened, opened_store
from ops.drills.drill import SETTINGS, Drill, EmbeddedDrill
from ops.drills.fault_proxy import Fault
from ops.drills.faults import DRILLS
from ops.drills.storage_faults import break_store
from ops.drills.stream_bench import DrillUnavailable
from ops.drills.table import outcome

PARTITIONS = 100
S3_FAULTS = Drill(
    "s3", "S3 breaks in each way, one after another.", break_store(*Fault, seconds=1.0), 1, needs_store=True
)
"""In place of a drill for each: the store's breaker would cost two seconds in each of them."""
ON_KAFKA = [drill for drill in DRILLS if isinstance(drill, Drill) and not drill.needs_store]
ON_KAFKA += [S3_FAULTS, *retry_topic_drills.DRILLS]
EMBEDDED = [drill for drill in DRILLS if isinstance(drill, EmbeddedDrill)]


@pytest.fixture(scope="module")
def bench(
    _kafka_server: KafkaServer,
    _redis_server: RedisServer,
    _s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """One stream with its workers for all drills: starting them anew for each would take longer than the drills."""
    for server in (_kafka_server, _redis_server, _s3_server):
        if server.pid is None:
            server.start()
    folder = tmp_path_factory.mktemp("drills")
    with (
        opened_store(_s3_server, "drills") as store,
        Bench(_kafka_server, _redis_server, folder, partitions=PARTITIONS, store=store, **SETTINGS) as opened_bench,
    ):
        yield opened_bench


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("drill", [pytest.param(drill, id=drill.name) for drill in ON_KAFKA])
def test_each_event_is_judged_once_through_the_drill(bench: Bench, drill: Drill) -> None:
    try:
        drill.run(bench, 1)
    except DrillUnavailable as error:
        pytest.skip(str(error))
    assert bench.recoveries, "the drill waits until what was published before the fault's end is judged"
    assert bench.counter.twice() == set()


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_after_all_drills_nothing_is_lost_or_repeated(bench: Bench) -> None:
    bench.finish()
    row = outcome(ON_KAFKA[-1], len(ON_KAFKA), bench)
    assert row.events > 100
    assert row.kept_the_promise, row


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("drill", [pytest.param(drill, id=drill.name) for drill in EMBEDDED])
def test_each_event_on_the_embedded_log_is_judged_once_through_the_drill(drill: EmbeddedDrill, tmp_path: Path) -> None:
    try:
        with opened(drill, tmp_path) as bench:
            drill.run(bench, 1)
            bench.finish()
            row = outcome(drill, 1, bench)
    except DrillUnavailable as error:
        pytest.skip(str(error))
    assert row.recovery_seconds
    assert row.kept_the_promise, row
