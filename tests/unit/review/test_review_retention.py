"""What the desk keeps and what it deletes, over years, and what a new desk finds."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from schemas import Decision, InlineReference, ReviewItem
from tests.unit.review.retention_bench import KEEP_DAYS, MortalTopics, bench_of, rebuilt, run_for, starts
from tests.unit.review.review_bench import DIGEST, ReviewBench, features, review_item, verdict
from worker.intake.log import Output
from worker.review.answers import Query, Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.contents import contents
from worker.review.index import keys
from worker.review.projector import fill
from worker.review.retention import RETRY, Retention
from worker.review.retention_metrics import RetentionMetrics
from worker.review.snapshot.form import SnapshotManifest, encoded
from worker.review.snapshot.store import SnapshotStore


def test_what_was_settled_long_ago_leaves_desk_redis_topics_and_exports() -> None:
    bench = bench_of()
    bench.items(*(review_item(f"i{number}") for number in range(6)))
    bench.publish("images.verdicts", verdict("passed"))
    bench.projector.step()
    for number in range(1, 6):
        bench.decide(bench.desk.take(f"i{number}", "ann"), "reject")
    bench.decide(bench.desk.take("verdict-passed", "ann"), "reject")
    bench.projector.step()
    assert [misses.missed for misses in bench.desk.statistics().audit_misses] == [1]
    run_for(bench, 2 * KEEP_DAYS + 2, steps=24)
    assert [view.item.item_id for view in bench.desk.search(Query()).items] == ["i0"]
    left = {key.decode().removeprefix(keys.PREFIX) for key in bench.redis.scan_iter(match=f"{keys.PREFIX}item|*")}
    assert left == {"item|i0"}
    for key in (keys.CLOSED, keys.SETTLED_AFTER, keys.PANELS):
        assert not bench.redis.exists(key), key
    assert bench.written("images.decisions") == []
    items = [ReviewItem.model_validate_json(value).item_id for value in bench.written("images.review")]
    assert set(items) == {"i0"}
    assert len(bench.written("images.review.snapshot")) <= 4, "two snapshots of a piece and a manifest"
    catalogue, _ = rebuilt(bench)
    assert catalogue.ids() == ["i0"]


def test_old_decisions_on_an_open_item_outlive_their_records() -> None:
    bench = bench_of()
    bench.items(review_item("a", image={"kind": "inline", "bytes": "aGVsbG8="}), review_item("b"))
    bench.desk.hold("a", "lead", note="ask legal")
    bench.desk.mark_gold("b", "reject", "lead")
    run_for(bench, 3 * KEEP_DAYS, steps=24)
    assert bench.written("images.decisions") == []
    assert bench.desk.item("a").status is Status.HELD
    assert bench.desk.image("a") == (InlineReference(bytes=b"hello"), None)
    catalogue, projector = rebuilt(bench)
    bench.catalogue, bench.desk, bench.projector = catalogue, bench.new_desk(), projector
    assert [made.note for made in bench.desk.item("a").history] == ["ask legal"]
    assert bench.desk.item("b").status is Status.GOLD
    assert bench.desk.image("a") == (InlineReference(bytes=b"hello"), None)
    bench.desk.reopen("a", "lead")
    bench.projector.step()
    assert bench.one("ann").item_id == "a"


def test_a_vote_that_is_older_than_its_record_is_kept_for_as_long_as_any_other() -> None:
    bench = bench_of()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.decide(lease, "reject", decided_at=bench.now - timedelta(days=400))
    run_for(bench, KEEP_DAYS - 0.5)
    assert bench.desk.item("a").status is Status.REJECTED
    assert bench.redis.exists(keys.item("a"))
    assert len(bench.written("images.decisions")) == 1
    run_for(bench, 3)
    assert not bench.redis.exists(keys.item("a"))


def test_a_catalogue_restored_from_a_snapshot_is_the_one_that_was_read() -> None:
    bench = bench_of()
    twins = {"content_hash": DIGEST, "features": features([1, 2, 3, 4])}
    bench.items(*(review_item(f"t{n}", **twins, prompt="a fox", labels=("odd",)) for n in range(3)))
    bench.items(*(review_item(f"i{n}", features=features([n, 1, -n, 2])) for n in range(3)))
    bench.decide(bench.desk.take("i0", "ann"), "reject", note="blurry", labels=("anatomy",))
    bench.desk.split(["t0"], "lead")
    bench.projector.step()
    bench.sleep(RETRY.total_seconds())
    for _ in range(8):
        bench.projector.step()
    assert bench.written("images.review.snapshot")

    def tables(catalogue: Catalogue) -> dict[str, list[Any]]:
        with catalogue.reader() as db:
            names = ("items", "bodies", "decisions", "marks", "notes", "buckets")
            return {name: sorted(map(repr, db.execute(f"SELECT * FROM {name}"))) for name in names}

    catalogue, _ = rebuilt(bench)
    of_read, of_snapshot = tables(bench.catalogue), tables(catalogue)
    # Who is the last in a bucket matters to nobody once it waits no more or is alone: the snapshot leaves those out.
    waiting = {int(row.split(",")[0].strip("(")) for row in of_snapshot["items"] if "'open', 0" in row}
    for named in (of_read, of_snapshot):
        named["buckets"] = [row for row in named["buckets"] if int(row.split(",")[1].strip(" )")) in waiting]
        named["bodies"] = [row for row in named["bodies"] if int(row.split(",")[0].strip("(")) in waiting]
    assert of_read == of_snapshot
    assert [v.item.item_id for v in bench.desk.search(Query(text="fox")).items] == ["t2", "t1", "t0"]


def _break(bench: ReviewBench, which: Callable[[list[int]], int]) -> None:
    """Damages one of the snapshots' pieces, as no broker would."""
    for records in (r for p, r in bench.topics._records.items() if p.topic == "images.review.snapshot"):
        long = [place for place, record in enumerate(records) if len(record.value or b"") > 120]
        if long:
            place = which(long)
            value = bytearray(records[place].value or b"")
            value[60:90] = bytes(30)
            records[place] = records[place]._replace(value=bytes(value))


def test_a_damaged_snapshot_is_passed_over_for_the_one_before() -> None:
    bench = bench_of()
    bench.topics._partitions = 1
    bench.items(review_item("a"), review_item("b"))
    for _ in range(2):
        bench.sleep(7 * 3600)
        for _ in range(8):
            bench.projector.step()
        bench.items(review_item(f"c{bench.now:%d%H}"))
    store = SnapshotStore(bench.settings.kafka, bench.topics)
    assert len(store.survey(bench.now).snapshots) == 2
    _break(bench, max)
    catalogue, _ = rebuilt(bench)
    assert sorted(catalogue.ids()) == sorted(bench.catalogue.ids())
    assert len(catalogue.ids()) == 4


def test_a_desk_that_was_away_for_long_begins_anew() -> None:
    bench = bench_of()
    bench.items(*(review_item(f"i{number}") for number in range(4)))
    with closing(bench.new_catalogue()) as away:
        fill(bench.settings, bench.topics, away, bench.clock)
        for number in range(3):
            bench.decide(bench.desk.take(f"i{number}", "ann"), "approve")
        bench.projector.step()
        run_for(bench, 2 * KEEP_DAYS + 2, steps=24)
        assert starts(bench, "images.decisions") == 3
        fill(bench.settings, bench.topics, away, bench.clock)
        assert away.ids() == ["i3"], "what was settled while it was away has not come back as open"


def test_a_log_that_refuses_to_delete_is_told_and_harms_nothing() -> None:
    bench = bench_of()
    metrics = RetentionMetrics(bench.clock)
    bench.projector._retention = Retention(
        bench.settings, bench.topics, bench.catalogue, bench.projector._index, bench.clock, metrics
    )

    def refuse(_: object) -> None:
        from worker.intake.log import LogError

        raise LogError("Kafka refuses")

    bench.topics.trim = refuse  # type: ignore[method-assign, assignment]
    bench.items(review_item("a"), review_item("b"))
    bench.decide(bench.desk.take("a", "ann"), "approve")
    run_for(bench, 2 * KEEP_DAYS + 2, steps=24)
    values = {s.name: s.value for family in metrics.collect() for s in family.samples if "status" not in s.labels}
    assert values["sluice_review_retention_failures_total"] > 0
    assert starts(bench, "images.review") == 0
    assert [view.item.item_id for view in bench.desk.search(Query()).items] == ["b"]
    catalogue, _ = rebuilt(bench)
    assert catalogue.ids() == ["b"]


def test_nothing_is_removed_while_the_clock_differs_from_that_of_redis() -> None:
    bench = bench_of()
    metrics = RetentionMetrics(bench.clock)
    ahead = timedelta()
    bench.projector._retention = Retention(
        bench.settings,
        bench.topics,
        bench.catalogue,
        bench.projector._index,
        bench.clock,
        metrics,
        lambda: bench.clock() - ahead,
    )
    bench.items(review_item("a"), review_item("b"))
    bench.decide(bench.desk.take("a", "ann"), "approve")
    ahead = timedelta(days=KEEP_DAYS + 2)
    bench.sleep(ahead.total_seconds())  # this desk's clock jumps
    run_for(bench, 1, steps=24)
    assert {view.item.item_id for view in bench.desk.search(Query()).items} == {"a", "b"}
    assert starts(bench, "images.decisions") == 0
    values = {s.name: s.value for family in metrics.collect() for s in family.samples if "status" not in s.labels}
    assert values["sluice_review_retention_failures_total"] > 0

    ahead = timedelta()  # the clock was right after all
    run_for(bench, 1, steps=24)
    assert {view.item.item_id for view in bench.desk.search(Query()).items} == {"b"}


def test_metrics_tell_what_is_kept_deleted_and_how_old_the_snapshot_is() -> None:
    bench = bench_of()
    metrics = RetentionMetrics(bench.clock)
    bench.projector._retention = Retention(
        bench.settings, bench.topics, bench.catalogue, bench.projector._index, bench.clock, metrics
    )
    bench.items(review_item("a"), review_item("b"))
    bench.decide(bench.desk.take("a", "ann"), "approve")
    run_for(bench, 2 * KEEP_DAYS + 2, steps=24)
    samples = {(s.name, *s.labels.values()): s.value for family in metrics.collect() for s in family.samples}
    assert samples["sluice_review_kept_items", "open"] == 1
    assert samples["sluice_review_kept_items", "approved"] == 0
    assert samples["sluice_review_records_deleted_total", "images.decisions"] == 1
    assert 0 <= samples["sluice_review_snapshot_age_seconds",] <= 6 * 3600 + 600
    other = bench.new_projector()
    other.seize()
    bench.projector.step()
    assert not [f for f in metrics.collect() if f.name == "sluice_review_snapshot_age_seconds"], "another desk has it"


@pytest.mark.parametrize("split", ["a", "b"])
def test_an_item_that_is_split_is_alone_though_the_cluster_had_its_name(split: str) -> None:
    bench = bench_of()
    bench.items(*(review_item(name, content_hash=DIGEST) for name in ("a", "b", "c")))
    assert bench.one("ann").items[0].cluster == ("a", "b", "c")
    bench.redis.flushall()
    bench.projector.catch_up()
    bench.desk.split([split], "lead")
    others = {"a", "b", "c"} - {split}
    for _ in ("as it was split", "and in an index built anew"):
        leases = [bench.one("ann"), bench.one("bob")]
        assert {frozenset(view.item.item_id for view in lease.items) for lease in leases} == {
            frozenset({split}),
            frozenset(others),
        }
        bench.redis.flushall()
        bench.projector.catch_up()


def test_a_log_that_lost_its_oldest_records_without_a_snapshot_is_read_once() -> None:
    bench = bench_of()
    bench.items(*(review_item(f"i{number}") for number in range(4)))
    bench.decide(bench.one("ann"), "reject")
    bench.topics.trim(bench.topics.ends("images.decisions"))
    catalogue, projector = rebuilt(bench)
    assert catalogue.count() == 4
    for _ in range(3):
        bench.sleep(61)
        projector.step()
        assert projector._reader.progress is not None
        assert not projector._reader.progress.is_fresh


def test_an_item_of_a_snapshot_that_is_none_any_more_costs_no_other() -> None:
    bench = bench_of()
    bench.items(review_item("a"), review_item("b"))
    with contents(bench.catalogue) as (positions, frames):
        (items,) = frames
    (catalogue, _) = rebuilt(bench)
    damaged = [msgspec.structs.replace(items[0], item=b'{"schema":"sluice.review-item/1"}'), items[1]]
    assert catalogue.restore([damaged], positions) == 1
    assert catalogue.ids() == ["b"]
    assert catalogue.positions() == positions


def test_a_snapshot_of_a_newer_version_is_never_deleted() -> None:
    bench = bench_of()
    manifest = SnapshotManifest(format=2, pieces=0, items=0, taken_at=0.0, positions=[])
    ((partition, offset),) = bench.topics.append([Output("images.review.snapshot", encoded(manifest), b"newer")])
    bench.items(review_item("a"))
    run_for(bench, 9, steps=30)
    assert bench.topics.record(partition, offset) is not None
    assert len(SnapshotStore(bench.settings.kafka, bench.topics).survey(bench.now).snapshots) >= 2


def test_a_decision_that_was_read_before_its_item_is_in_no_gap_of_the_snapshot() -> None:
    bench = bench_of()
    assert isinstance(bench.topics, MortalTopics)
    bench.items(review_item("first"))
    bench.topics.silent = "images.review"
    bench.publish("images.review", review_item("late"))
    made = Decision(
        **review_item("late").model_dump(include={"item_id", "verdict_id", "event_id", "tenant", "queue"}),
        decision_id="d",
        reviewer="ann",
        outcome="reject",
        resolution="reject",
        fencing_token=1,
        decided_at=bench.now,
    )
    bench.publish("images.decisions", made, key="item_id")
    bench.projector.step()
    run_for(bench, 0.5, steps=2)  # a snapshot is written while it is so
    bench.topics.silent = None
    catalogue, _ = rebuilt(bench)
    assert catalogue.entries(["late"])["late"].state.status is Status.REJECTED
