"""The catalogue: what is found by which words, what survives a restart, and that the index is filled from it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas import Decision
from tests.unit.review.review_bench import DIGEST, START, ReviewBench, review_item
from worker.intake.log import LogError
from worker.review.answers import Query, Status
from worker.review.catalogue.catalogue import FILE, Catalogue
from worker.review.catalogue.export import everything
from worker.review.catalogue.reader import CatalogueReader
from worker.review.catalogue.text import match_expression
from worker.review.index import keys
from worker.review.projector import fill
from worker.settings import ReviewSettings


def found(bench: ReviewBench, text: str | None = None, blind_to: str | None = None, **query: Any) -> list[str]:
    views = bench.desk.search(Query(text=text, **query), blind_to=blind_to).items
    return [view.item.item_id for view in views]


def decision(item_id: str, **more: Any) -> Decision:
    fields: dict[str, Any] = {
        "decision_id": f"d-{item_id}",
        "item_id": item_id,
        "verdict_id": item_id,
        "event_id": f"event-{item_id}",
        "tenant": "default",
        "queue": "quality",
        "reviewer": "ann",
        "outcome": "approve",
        "resolution": "approve",
        "decided_at": START,
        "fencing_token": 1,
    }
    return Decision(**{**fields, **more})


def test_the_oldest_of_many_items_is_found_in_one_request() -> None:
    bench = ReviewBench()
    bench.items(review_item("oldest", prompt="a heron at dusk"))
    bench.items(
        *(review_item(f"i{n}", prompt="a fox in snow", created_at=START + timedelta(minutes=n)) for n in range(1, 6000))
    )
    page = bench.desk.search(Query(text="heron"), limit=50)
    assert [view.item.item_id for view in page.items] == ["oldest"]
    assert page.cursor is None


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("fox snow", True),
        ("SNOW fox", True),
        ("sno", True),  # the beginning of a word
        ("fo", False),  # too short for one
        ("fox desert", False),
        ("café", True),
        ("cafe", True),
        ("雪地", True),  # words within a script without blanks
        ("狐狸 雪", True),
        ("地雪", False),
        ("i-0042", True),
        ("event-i-0042", True),
        ('"fox" OR desert*) NEAR', False),  # operators of the query language are words like others
        ("!!!", False),
    ],
)
def test_words_are_found_as_people_type_them(text: str, matches: bool) -> None:
    bench = ReviewBench()
    bench.items(review_item("i-0042", prompt="A red Fox in the snow, café; 一只狐狸在雪地里"))
    assert found(bench, text) == (["i-0042"] if matches else [])


def test_who_votes_does_not_find_items_by_the_notes_of_others() -> None:
    bench = ReviewBench()
    bench.items(review_item("a", prompt="a fox"))
    bench.desk.hold("a", "lea", note="looks like a celebrity")
    bench.projector.step()
    assert found(bench, "celebrity") == ["a"]
    assert found(bench, "celebrity", blind_to="ben") == []
    assert found(bench, "fox", blind_to="ben") == ["a"]


def test_a_note_that_was_added_later_is_found_and_every_filter_narrows() -> None:
    bench = ReviewBench()
    bench.items(
        review_item("a", generator="flux", scores={"quality": 1.5}),
        review_item("b", generator="sdxl", scores={"quality": 3.5}, created_at=START + timedelta(days=1)),
    )
    bench.desk.hold("a", "lea", note="first")
    bench.projector.step()
    bench.desk.reopen("a", "lea", note="second thoughts")
    bench.projector.step()
    assert found(bench, "first") == found(bench, "thoughts") == found(bench, "first second") == ["a"]
    assert found(bench, generator="flux") == found(bench, max_quality=2.0) == found(bench, outcome="hold") == ["a"]
    assert found(bench, min_quality=2.0) == found(bench, since=START + timedelta(hours=1)) == ["b"]
    assert found(bench, until=START + timedelta(hours=1)) == ["a"]


def test_after_a_restart_the_topics_are_read_on_from_where_they_were_read_to() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(f"i{n}") for n in range(20)))
    bench.decide(bench.one("ann"), "approve")
    bench.projector.step()
    positions = bench.catalogue.positions()
    bench.catalogue.close()
    bench.catalogue = Catalogue(bench.catalogue.path, bench.settings.review)
    bench.redis.flushall()  # as the embedded desk's, which lives in memory
    bench.desk = bench.new_desk()
    asked: list[int] = []
    original = bench.topics.read

    def reading(wanted: Any, wait_seconds: float) -> Any:
        batch = original(wanted, wait_seconds)
        asked.append(len(batch.records))
        return batch

    bench.topics.read = reading  # type: ignore[method-assign]
    bench.new_projector().catch_up()
    assert sum(asked) == 0
    assert bench.catalogue.positions() == positions
    assert bench.desk.queues()[0].open == 19
    assert len(found(bench, status=Status.APPROVED)) == 1


def test_the_desk_works_on_what_is_filled_in_while_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.review.projector.FILLED_AT_ONCE", 10)
    bench = ReviewBench()
    bench.items(*(review_item(f"i{n}", priority=n) for n in range(50)))
    while bench.desk.queues()[0].open < 50:
        bench.projector.step()
    bench.redis.flushall()
    bench.projector.yield_to_others()
    projector = bench.new_projector()
    projector.step()
    assert bench.desk.queues()[0].open == 10
    assert bench.redis.hgetall(keys.PROGRESS) == {b"phase": b"filling", b"done": b"10", b"total": b"50"}
    lease = bench.one("ann")
    assert lease.item_id == "i49"  # what is due first is filled in first
    bench.decide(lease, "approve")
    assert bench.desk.item("i0").status is Status.OPEN  # not in the index yet, but it can be looked at
    projector.catch_up()
    assert bench.desk.queues()[0].open == 49


def test_a_decision_that_is_made_while_the_index_is_filled_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.review.projector.FILLED_AT_ONCE", 1)
    bench = ReviewBench()
    bench.items(review_item("a", priority=9), review_item("b"))
    bench.projector.catch_up()
    lease = bench.one("ann")
    bench.decide(lease, "reject")
    bench.projector.catch_up()
    before = bench.dump()
    bench.redis.flushall()
    bench.projector.yield_to_others()
    bench.new_projector(bench.new_catalogue()).catch_up()
    assert bench.dump() == before


def test_a_long_prompt_is_cut_in_redis_and_shown_whole() -> None:
    bench = ReviewBench()
    prompt = "a very long prompt " * 500
    bench.items(review_item("a", prompt=prompt))
    assert len(bench.redis.hgetall(keys.item("a"))[b"item"]) < 1500
    assert bench.one("ann").items[0].item.prompt == prompt
    assert found(bench, "very long") == ["a"]


def test_decisions_on_an_item_that_was_compacted_leave_redis_and_the_catalogue() -> None:
    bench = ReviewBench()
    bench.publish("images.decisions", decision("gone"), key="item_id")
    bench.projector.step()
    assert not bench.redis.exists(keys.item("gone"))  # it never came from the catalogue
    bench.sleep(8 * 24 * 3600)
    bench.projector.step()
    with bench.catalogue.reader() as db:
        assert db.execute("SELECT count(*) FROM decisions").fetchone() == (0,)


def test_a_decision_that_redis_has_without_its_item_expires() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.redis.delete(keys.item("a"))  # as when Redis was flushed at this moment
    bench.desk._index.apply([_placed(decision("a", fencing_token=lease.token))])
    assert 0 < bench.redis.ttl(keys.item("a")) <= 24 * 3600
    bench.desk._index.load(bench.catalogue.entries(["a"]))
    assert bench.redis.ttl(keys.item("a")) == -1


def _placed(made: Decision) -> Any:
    from worker.intake.log import Partition
    from worker.review.placed import Placed

    return Placed(made, Partition("images.decisions", 0), 7)


def test_an_export_holds_what_was_settled_long_before_it_left_the_index() -> None:
    bench = ReviewBench(keep_closed_days=1)
    bench.items(review_item("a"), review_item("b"))
    bench.decide(bench.desk.take("a", "ann"), "reject", note="blurry")
    bench.projector.step()
    bench.sleep(49 * 3600)
    bench.projector.step()
    bench.projector.step()
    assert found(bench) == ["b"]
    with closing(bench.new_catalogue()) as catalogue:
        fill(bench.settings, bench.topics, catalogue, bench.clock)
        views = {view.item.item_id: view for view in everything(catalogue, bench.settings.review)}
        assert views["a"].status is Status.REJECTED
        assert [made.note for made in views["a"].history] == ["blurry"]
        assert [v.item.item_id for v in everything(catalogue, bench.settings.review, status=Status.REJECTED)] == ["a"]
        assert list(everything(catalogue, bench.settings.review, queue="other")) == []


def test_what_leaves_the_catalogue_leaves_nothing_behind() -> None:
    bench = ReviewBench(keep_closed_days=1)
    bench.items(review_item("a", prompt="a fox", content_hash=DIGEST, labels=("odd",)))
    bench.decide(bench.one("ann"), "reject", note="blurry", labels=("anatomy",))
    bench.projector.step()
    bench.sleep(49 * 3600)
    bench.projector.step()
    bench.projector.step()
    with bench.catalogue.reader() as db:
        for table in ("items", "bodies", "decisions", "marks", "notes", "buckets"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert db.execute("SELECT count(*) FROM texts WHERE texts MATCH 'fox OR blurry'").fetchone() == (0,)


def test_a_catalogue_of_another_log_is_made_again() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(f"i{n}") for n in range(5)))
    bench.topics._records.clear()  # somebody made the topics anew
    bench.publish("images.review", review_item("fresh"))
    reader = CatalogueReader(bench.settings, bench.topics, bench.catalogue, bench.clock)
    while not reader.is_caught_up:
        reader.read()
    assert bench.catalogue.ids() == ["fresh"]


def test_a_file_of_another_format_is_made_again_and_a_broken_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with closing(Catalogue(path, ReviewSettings())) as catalogue, catalogue.reader() as db:
        db.execute("PRAGMA user_version = 99")
    with closing(Catalogue(path, ReviewSettings())) as catalogue:
        assert catalogue.count() == 0
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(LogError, match="may be removed"):
        Catalogue(path, ReviewSettings())


def test_items_that_came_in_the_same_microsecond_are_all_kept(tmp_path: Path) -> None:
    bench = ReviewBench()
    bench.items(*(review_item(f"i{n}") for n in range(300)))
    assert bench.catalogue.count() == 300
    pages, cursor = [], None
    while not pages or cursor is not None:
        page = bench.desk.search(Query(), limit=70, cursor=cursor)
        pages += [view.item.item_id for view in page.items]
        cursor = page.cursor
    assert sorted(pages) == sorted(f"i{n}" for n in range(300))


def test_a_query_of_words_names_its_columns_and_quotes_each_word() -> None:
    assert match_expression('fox "sno', ("prompt", "ids")) == '{prompt ids} : ("fox"* AND """sno"*)'


def test_many_short_lived_threads_leave_few_connections_open() -> None:
    bench = ReviewBench()
    bench.items(review_item("a", prompt="a fox"))
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("counts open files by /proc")
    before = len(list(descriptors.iterdir()))
    for _ in range(40):
        thread = threading.Thread(target=found, args=(bench, "fox"))
        thread.start()
        thread.join(30)
    assert len(list(descriptors.iterdir())) < before + 20


def test_a_search_does_not_wait_for_a_write_that_takes_long() -> None:
    bench = ReviewBench()
    bench.items(review_item("a", prompt="a fox"))
    with bench.catalogue._lock, ThreadPoolExecutor(1) as pool:
        assert pool.submit(found, bench, "fox").result(timeout=30) == ["a"]
