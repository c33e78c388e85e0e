"""A member whose log gives back what was put off: a flood holds up nobody, and each event gets its one verdict."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any, Literal

import pytest

from tests.unit.intake.member_bench import IN, QUICK, Bench, FakeLog, FakeStore, event, http, s3
from tests.unit.intake.pictures import png
from worker.cache.client import connect_embedded
from worker.intake.deferral import Deferral, deferred_whole, read_deferral
from worker.intake.fair_shares import LANE_HEADER, LaneChooser
from worker.intake.fairness import FIRST_GUESS
from worker.intake.ledger import Ticket
from worker.intake.log import Lag, Output, Partition, Poll, Record
from worker.intake.packs import pack, unpack
from worker.intake.parse import parse
from worker.intake.surplus_backlog import MovedRecords, SurplusBacklog
from worker.intake.tenant_memory import RedisTenants
from worker.judging.lanes import Lane
from worker.settings import FairnessSettings, TopicSettings

TOPICS = TopicSettings(priority="images.priority")
SURPLUS = (Partition(TOPICS.surplus, 0), Partition(TOPICS.surplus_long, 0))


class LoopLog(FakeLog):
    """Hands out what was written to the surplus topics."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(records, partitions=(IN, *SURPLUS))
        self._ends = Counter[Partition]()

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        super().commit(outputs, offsets)
        for output in outputs:
            partition = Partition(output.topic, 0)
            if partition in SURPLUS:
                self.waiting.append(
                    Record(partition, self._ends[partition], output.value, output.key, output.headers, 7)
                )
                self._ends[partition] += 1

    def poll(self, timeout_seconds: float) -> Poll:
        """All records that wait, at once."""
        poll = super().poll(timeout_seconds)
        if not poll.records:
            return poll
        ready = [*poll.records, *(record for record in self.waiting if record.partition not in self.paused)]
        self.waiting = [record for record in self.waiting if record not in ready]
        return Poll(ready)

    def lag(self) -> Lag:
        return Lag(dict.fromkeys((IN, *SURPLUS), len(self.waiting)), partitions={IN.topic: 1})


def flood_then_small(flood: int) -> list[Record]:
    values = [event(f"flood-{i}", http("x"), tenant="flood") for i in range(flood)]
    values += [event(f"small-{i}", http("x"), tenant="small") for i in range(3)]
    return [Record(IN, offset, value, b"k", timestamp_ms=1_700_000_000_000) for offset, value in enumerate(values)]


def test_a_flood_does_not_hold_up_another_tenant_and_each_event_gets_one_verdict_from_its_first_place() -> None:
    log = LoopLog(flood_then_small(300))
    bench = Bench(log, FakeStore({"http://images/x": png(9)}), settings=QUICK, fairness=FairnessSettings())
    bench.run_until(lambda: len(log.verdicts) == 303)
    verdicts = log.verdicts
    places = {v["event_id"]: v["source"]["offset"] for v in verdicts}
    assert places == {f"flood-{i}": i for i in range(300)} | {f"small-{i}": 300 + i for i in range(3)}
    assert {v["source"]["topic"] for v in verdicts} == {"images.in"}
    moved = bench.metrics.events_deferred.labels(TOPICS.surplus)._value.get()
    assert moved == pytest.approx(300 - 2 * FIRST_GUESS, abs=2), "what is judged within the delay is live"
    last_small = max(i for i, v in enumerate(verdicts) if v["tenant"] == "small")
    assert last_small < 300 - moved + 3, "it comes before all that was put off"


def test_what_was_put_off_is_not_put_off_again() -> None:
    log = LoopLog(flood_then_small(300))
    bench = Bench(log, FakeStore({"http://images/x": png(9)}), settings=QUICK, fairness=FairnessSettings())
    bench.run_until(lambda: len(log.verdicts) == 303)
    moved = moved_in(log.outputs)
    assert set(moved.values()) == {1}
    packs = [output for output in log.outputs if output.topic == TOPICS.surplus]
    assert len(packs) < moved.total() / 3, "they travel in packs"


def moved_in(outputs: Sequence[Output]) -> Counter[bytes]:
    """The values that were moved to the surplus topic."""
    moved: Counter[bytes] = Counter()
    for output in outputs:
        if output.topic == TOPICS.surplus:
            record = Record(SURPLUS[0], 0, output.value, output.key, output.headers)
            moved.update([each.value or b"" for each in unpack(record)])
    return moved


def a_pack(*values: bytes) -> Record:
    """A record of the surplus topic with events that came at offsets 70, 71, … of the live one."""
    moved = [
        deferred_whole(Record(IN, 70 + i, value, b"k"), TOPICS.surplus, first_seen_ms=5, reason="its share")
        for i, value in enumerate(values)
    ]
    (packed,) = pack(moved, {TOPICS.surplus}).outputs
    return Record(SURPLUS[0], 3, packed.value, packed.key, packed.headers, 7)


def surplus_bench(log: FakeLog, **answers: Any) -> Bench:
    store = FakeStore({"http://images/x": png(9)} | {f"http://images/{name}": answers[name] for name in answers})
    return Bench(log, store, settings=QUICK, fairness=FairnessSettings())


def test_each_event_of_a_pack_ends_as_it_would_by_itself_and_names_its_first_place() -> None:
    values = [event("good", http("x")), event("bad", http("bad")), b"no event", event("last", http("x"))]
    log = FakeLog([a_pack(*values)], partitions=(IN, *SURPLUS))
    bench = surplus_bench(log, bad=b"no image")
    bench.run_until(lambda: bool(log.offsets))
    verdicts = {v["event_id"]: v for v in log.verdicts}
    assert {name: v["source"]["offset"] for name, v in verdicts.items()} == {
        "good": 70,
        "bad": 71,
        "record:images.in/0/72": 72,
        "last": 73,
    }
    letters = log.written("images.dead")
    assert {letter["source"]["offset"]: letter["failure"]["reason"] for letter in letters} == {
        71: "unsupported_format",
        72: "malformed_event",
    }
    assert log.offsets == {SURPLUS[0]: 4}


def test_nothing_of_a_pack_is_written_before_its_last_event_is_judged() -> None:
    waits, seen = Event(), []

    def slow() -> bytes:
        seen.append(len(log.verdicts))
        waits.wait(0.3)
        seen.append(len(log.verdicts))
        return png(200)

    slow_pack = a_pack(*(event(f"e{i}", http("x")) for i in range(9)), event("slow", http("slow")))
    log = FakeLog([slow_pack], partitions=(IN, *SURPLUS))
    surplus_bench(log, slow=slow).run_until(lambda: bool(log.offsets))
    assert seen == [0, 0]
    assert len(log.verdicts) == 10


def test_a_pack_that_cannot_be_read_is_a_dead_letter_and_its_partition_goes_on() -> None:
    broken = a_pack(event("a", http("x")), event("b", http("x")))._replace(value=b"\x91broken")
    good = a_pack(event("c", http("x")), event("d", http("x")))._replace(offset=4)
    log = FakeLog([broken, good], partitions=(IN, *SURPLUS))
    surplus_bench(log).run_until(lambda: log.offsets.get(SURPLUS[0]) == 5)
    (letter,) = log.written("images.dead")
    assert (letter["failure"]["reason"], letter["source"]["offset"]) == ("malformed_event", 3)
    assert {v["event_id"] for v in log.verdicts} == {"record:images.surplus/0/3", "c", "d"}


def test_packs_that_were_read_wait_as_bytes_until_there_is_room() -> None:
    packs = [a_pack(*(event(f"{n}-{i}", http("x")) for i in range(100)))._replace(offset=n) for n in range(6)]
    log, gate = LoopLog(packs), Event()
    bench = surplus_bench(log, x=lambda: gate.wait(20) and png(9))
    at_gate: list[tuple[int, int]] = []

    def is_done() -> bool:
        if log.polled > 10 and not at_gate:
            member = bench.member
            in_pipeline = member._pipeline.queued.waiting(Lane.SURPLUS) + member._pipeline.in_progress
            at_gate.append((in_pipeline, member._surplus.waiting(TOPICS.surplus)))
            gate.set()
        return len(log.verdicts) == 600

    bench.run_until(is_done)
    ((in_pipeline, waiting),) = at_gate
    assert in_pipeline + waiting == 600
    assert in_pipeline <= 2 * FIRST_GUESS + 100, "what it judges in two seconds, and one pack"


def test_packs_of_a_partition_that_goes_to_another_worker_are_forgotten() -> None:
    backlog = SurplusBacklog()
    for number, offset in ((0, 1), (1, 1), (0, 2)):
        partition = Partition(TOPICS.surplus, number)
        record = Record(partition, offset, b"")
        backlog.push(MovedRecords(Ticket(partition, 1, offset), record, 10))
    backlog.drop([Partition(TOPICS.surplus, 0)])
    assert backlog.waiting(TOPICS.surplus) == 10
    assert [moved.ticket.partition.number for moved in backlog.pop(TOPICS.surplus, 100)] == [1]
    assert (backlog.waiting(TOPICS.surplus), list(backlog.tickets())) == (0, [])


def test_events_known_from_the_cache_are_never_put_off() -> None:
    values = [event(f"e{i}", s3("a.png", "1"), tenant="flood") for i in range(400)]
    first, *rest = (Record(IN, offset, value) for offset, value in enumerate(values))
    log = LoopLog([first])
    bench = Bench(log, FakeStore({"a.png": png(9)}), settings=QUICK, fairness=FairnessSettings())

    def is_done() -> bool:
        if log.verdicts and rest:
            log.waiting += rest
            rest.clear()
        return len(log.verdicts) == 400

    bench.run_until(is_done)
    assert {output.topic for output in log.outputs} == {TOPICS.verdicts, TOPICS.review}


@pytest.mark.parametrize(
    ("topic", "priority", "headers", "lane"),
    [
        ("images.in", 50, (), Lane.LIVE),
        ("images.in", 90, (), Lane.PRIORITY),
        ("images.in", 0, ((LANE_HEADER, b"priority"),), Lane.PRIORITY),
        ("images.in", 0, ((LANE_HEADER, b"other"),), Lane.LIVE),
        ("images.priority", 0, (), Lane.PRIORITY),
        ("images.surplus", 100, ((LANE_HEADER, b"priority"),), Lane.SURPLUS),
        ("images.surplus.long", 50, (), Lane.SURPLUS_LONG),
        ("images.retry.1", 50, (), Lane.LIVE),
    ],
)
def test_the_lane_follows_from_topic_priority_and_header(
    topic: str, priority: int, headers: tuple[tuple[str, bytes], ...], lane: Lane
) -> None:
    record = Record(Partition(topic, 0), 0, event("a", http("x"), priority=priority), headers=headers)
    (parsed,) = parse(record).events
    assert LaneChooser(FairnessSettings(), TOPICS).lane(parsed, record) is lane


def test_a_record_that_is_moved_as_it_is_reads_as_one_that_the_models_wrote() -> None:
    record = Record(IN, 17, event("a", http("x")), b"key")
    output = deferred_whole(record, TOPICS.surplus, first_seen_ms=5, reason="its tenant sent more than its share")
    again = Record(Partition(output.topic, 0), 0, output.value, output.key, output.headers)
    assert parse(again) == parse(record)
    assert read_deferral(again) == Deferral.model_validate(
        {
            "source": {"topic": "images.in", "partition": 0, "offset": 17, "index": 0},
            "first_seen_ms": 5,
            "reason": "its tenant sent more than its share",
        }
    )


def test_a_lone_tenants_backlog_keeps_its_partition() -> None:
    log = LoopLog(flood_then_small(300)[:300])
    bench = Bench(log, FakeStore({"http://images/x": png(9)}), settings=QUICK, fairness=FairnessSettings())
    bench.run_until(lambda: len(log.verdicts) == 300)
    assert not moved_in(log.outputs)


@pytest.mark.parametrize("setting", [True, "auto"])
def test_a_lone_tenants_backlog_moves_by_setting_or_when_another_tenant_came_within_a_day(
    setting: Literal["auto"] | bool,
) -> None:
    client = connect_embedded()
    if setting == "auto":
        RedisTenants(client, "group").exchange({"small": time.time() - 3600})
    log = LoopLog(flood_then_small(300)[:300])
    bench = Bench(
        log,
        FakeStore({"http://images/x": png(9)}),
        settings=QUICK,
        fairness=FairnessSettings(defer_surplus=setting),
        tenant_store=RedisTenants(client, "group"),
    )
    bench.run_until(lambda: len(log.verdicts) == 300)
    assert moved_in(log.outputs)


def test_a_lone_tenants_quota_holds() -> None:
    log = LoopLog(flood_then_small(300)[:300])
    fairness = FairnessSettings(quota_per_second=1, quota_burst_seconds=100)
    bench = Bench(log, FakeStore({"http://images/x": png(9)}), settings=QUICK, fairness=fairness)
    bench.run_until(lambda: len(log.verdicts) == 300)
    assert moved_in(log.outputs).total() == pytest.approx(200, abs=20)


def test_what_was_kept_for_a_lone_tenant_moves_when_another_comes() -> None:
    flood, small = flood_then_small(300)[:300], flood_then_small(300)[300:]
    log, gate = LoopLog(flood), Event()
    bench = Bench(
        log,
        FakeStore({"http://images/x": lambda: gate.wait(20) and png(9)}),
        settings=QUICK,
        fairness=FairnessSettings(),
    )

    def is_done() -> bool:
        if bench.member._pipeline.begun and small:
            log.waiting += small
            small.clear()
        if bench.parts.tenants.are_several:
            gate.set()
        return len(log.verdicts) == 303

    bench.run_until(is_done)
    assert moved_in(log.outputs).total() >= 150
    last_small = max(i for i, v in enumerate(log.verdicts) if v["tenant"] == "small")
    assert last_small < 150, "it does not wait for what stood before it"
