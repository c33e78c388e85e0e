"""What becomes of dead letters: each is redriven once, keeps its history, and is never dropped without a trace."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from letter_bench import NOW, LetterBench, event

from schemas import FailureReason, Source
from worker.dead_letters.book import LetterBook
from worker.dead_letters.letter import HISTORY_HEADER, history_in
from worker.dead_letters.selection import LetterState, Selection
from worker.dead_letters.writers import EmbeddedWriter
from worker.intake.deferral import Deferral, deferred_output
from worker.intake.log import CommitFailed, LogError, Output, Partition, Record
from worker.intake.parse import parse
from worker.outbox import ROOM_FOR_OURS

EVERY = Selection(state=None)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LetterBench]:
    bench = LetterBench(tmp_path)
    with bench.stack:
        yield bench


def test_a_letter_is_redriven_once_however_often_it_is_asked_for(bench: LetterBench) -> None:
    for number in range(250):
        bench.letter(event(f"e{number}"))
    book = bench.book()

    report = bench.actions(book).redrive(book.find(Selection()))
    assert len(report.done) == 250
    book.refresh()
    assert book.find(Selection()) == []
    again = bench.actions(book, run="run-2").redrive(book.find(EVERY))

    assert again.done == []
    assert set(again.already.values()) == {LetterState.REDRIVEN}
    assert bench.submitted == sorted(f"e{number}" for number in range(250))


def test_who_has_read_the_letters_before_another_acted_does_not_repeat_it(bench: LetterBench) -> None:
    bench.letter(event())
    mine, theirs = bench.book(), bench.book()

    bench.actions(theirs, actor="bo", run="theirs").redrive(theirs.find(Selection()))
    report = bench.actions(mine).redrive(mine.find(Selection()))

    assert report.done == []
    assert list(report.already.values()) == [LetterState.REDRIVEN]
    assert bench.submitted == ["e1"]


class LosesTheAnswer:
    """Fails once, before or after the records are stored."""

    def __init__(self, real: EmbeddedWriter, stored: bool) -> None:
        self._real = real
        self._stored = stored
        self._failed = False

    def write(self, prepare: Callable[[], Sequence[Output]]) -> None:
        if not self._failed:
            self._failed = True
            if self._stored:
                self._real.write(prepare)
            raise CommitFailed("the answer was lost")
        self._real.write(prepare)

    def close(self) -> None:
        self._real.close()


@pytest.mark.parametrize("stored", [True, False])
def test_an_outcome_that_was_not_told_is_found_out_and_not_repeated(bench: LetterBench, stored: bool) -> None:
    bench.letter(event())
    book = bench.book()
    writer = LosesTheAnswer(EmbeddedWriter(bench.settings, bench.folder), stored)

    report = bench.actions(book, writer).redrive(book.find(Selection()))
    writer.close()

    assert len(report.done) == 1
    assert bench.submitted == ["e1"]
    assert len(bench.done) == len(bench.audit) == 1


def test_a_log_that_never_takes_it_is_an_error_and_nothing_is_submitted(bench: LetterBench) -> None:
    bench.letter(event())
    book = bench.book()

    class Refuses:
        def write(self, prepare: Callable[[], Sequence[Output]]) -> None:
            prepare()
            raise LogError("no")

        def close(self) -> None: ...

    with pytest.raises(LogError):
        bench.actions(book, Refuses()).redrive(book.find(Selection()))
    assert bench.images == []


def test_of_a_record_with_several_events_only_the_one_that_failed_is_submitted_again(bench: LetterBench) -> None:
    value = notification("one", "two", "three")
    events = parse(Record(Partition("images.in", 0), 0, value)).events
    bench.letter(value, name=events[1].id, index=1)
    book = bench.book()

    bench.actions(book).redrive(book.find(Selection()))

    (record,) = bench.images
    assert parse(record).events == (events[1],)


def moved_from(value: bytes, index: int, offset: int) -> Record:
    """What stands in a retry topic of one event of a record."""
    first = Record(Partition("images.in", 0), offset, value)
    source = Source(topic="images.in", partition=0, offset=offset, index=index)
    moved = deferred_output(
        first, parse(first).events[index], Deferral(source=source, first_seen_ms=1), "images.retry.1"
    )
    return Record(Partition("images.retry.1", 0), 0, moved.value, moved.key, moved.headers)


def test_an_event_that_failed_in_a_retry_topic_is_submitted_as_a_new_one(bench: LetterBench) -> None:
    value = notification("one", "two", "three")
    record = moved_from(value, 2, 7)
    (wanted,) = parse(record).events
    bench.letter(record.value, name=wanted.id, index=2, offset=7, headers=record.headers)
    book = bench.book()

    bench.actions(book).redrive(book.find(Selection()))

    (submitted,) = bench.images
    assert parse(submitted).events == (wanted,)
    assert [name for name, _ in submitted.headers] == [HISTORY_HEADER], "nothing says any more that it was moved"


def test_a_cut_letter_of_a_moved_event_is_redriven_from_the_record_that_it_came_in(bench: LetterBench) -> None:
    value = notification("one", "two", "three")
    ((partition, offset),) = bench.topics.append([Output(bench.names.images, value, b"k")])
    record = moved_from(value, 1, offset)
    (wanted,) = parse(record).events
    size = len(record.value or b"")
    bench.letter(
        (record.value or b"")[:40],
        name=wanted.id,
        index=1,
        partition=partition.number,
        offset=offset,
        headers=record.headers,
        payload_size=size,
    )
    book = bench.book()

    bench.actions(book).redrive(book.find(Selection()))

    assert (wanted,) in [parse(record).events for record in bench.images]


def notification(*names: str) -> bytes:
    records = [
        {
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-11-30T12:00:00Z",
            "s3": {"bucket": {"name": "b"}, "object": {"key": f"{name}.png", "eTag": "1", "sequencer": "7"}},
        }
        for name in names
    ]
    return json.dumps({"Records": records}).encode()


def test_an_event_in_a_cloudevent_is_submitted_plain_with_its_key_and_other_headers(bench: LetterBench) -> None:
    headers = (
        ("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"/app"), ("ce_type", b"made"),
        ("ce_time", b"2026-11-30T12:00:00Z"), ("content-type", b"application/json"), ("trace", b"abc"),
    )  # fmt: skip
    value = b'{"schema":"sluice.image-event/1","image":{"kind":"s3","bucket":"b","key":"k"}}'
    (wanted,) = parse(Record(Partition("images.in", 0), 0, value, None, headers)).events
    bench.letter(value, name=wanted.id, headers=headers, key=b"customer-7")
    book = bench.book()

    bench.actions(book).redrive(book.find(Selection()))

    (record,) = bench.images
    assert parse(record).events == (wanted,)
    assert record.key == b"customer-7"
    assert [name for name, _ in record.headers] == [HISTORY_HEADER, "trace"]


def test_a_record_that_holds_no_event_is_submitted_as_it_came(bench: LetterBench) -> None:
    bench.letter(b"{not json", reason=FailureReason.MALFORMED_EVENT, headers=(("content-type", b"text/plain"),))
    book = bench.book()

    bench.actions(book).redrive(book.find(Selection()))

    (record,) = bench.images
    assert record.value == b"{not json"
    assert ("content-type", b"text/plain") in record.headers


def test_the_history_says_how_often_when_why_and_by_whom(bench: LetterBench) -> None:
    headers: tuple[tuple[str, bytes | None], ...] = ()
    for turn in range(3):
        bench.letter(event(), headers=headers)
        book = bench.book()
        at = NOW + timedelta(hours=turn)
        bench.actions(book, actor=f"person-{turn}", run=f"run-{turn}", at=at).redrive(book.find(Selection()))
        headers = bench.images[-1].headers

    history = history_in(headers)
    assert [(each.actor, each.redriven_at) for each in history] == [
        (f"person-{turn}", NOW + timedelta(hours=turn)) for turn in range(3)
    ]
    assert {each.reason for each in history} == {FailureReason.IMAGE_NOT_FOUND}
    assert len({each.letter_id for each in history}) == 3


def test_a_header_that_a_sender_made_up_is_no_history(bench: LetterBench) -> None:
    bench.letter(event(), headers=((HISTORY_HEADER, b"\xff{"), (HISTORY_HEADER, b"{}")))
    (letter,) = bench.book().find(Selection())
    assert letter.history == ()


def test_a_cut_letter_is_redriven_from_its_source_while_that_is_kept(bench: LetterBench) -> None:
    whole = event("big").model_dump_json(by_alias=True).encode()
    ((partition, offset),) = bench.topics.append([Output(bench.names.images, whole, b"k")])
    bench.letter(whole[:40], name="big", partition=partition.number, offset=offset, payload_size=len(whole))
    bench.letter(whole[:40], name="gone", offset=9_999, payload_size=len(whole))
    book = bench.book()

    report = bench.actions(book).redrive(book.find(Selection()))

    assert len(report.done) == 1
    assert list(report.refused.values()) == [
        "the letter holds only part of its record, and images.in/0@9999 no longer exists"
    ]
    assert bench.submitted == ["big", "big"]
    book.refresh()
    assert [letter.event_id for letter in book.find(Selection())] == ["gone"]


def test_a_record_that_no_worker_would_read_is_refused(bench: LetterBench) -> None:
    size = bench.settings.kafka.max_message_bytes - ROOM_FOR_OURS + 1
    bench.letter(b"x" * size, reason=FailureReason.EVENT_TOO_LARGE)
    bench.letter(None, reason=FailureReason.MALFORMED_EVENT)
    book = bench.book()

    report = bench.actions(book).redrive(book.find(Selection()))

    assert sorted(report.refused.values()) == [
        "its record has no value: there is nothing to submit",
        f"the record has {size:,} bytes, and a worker reads at most {size - 1:,}",
    ]
    assert bench.images == []


def test_a_dropped_letter_stays_with_who_and_why_and_can_still_be_redriven(bench: LetterBench) -> None:
    bench.letter(event())
    book = bench.book()

    report = bench.actions(book).drop(book.find(Selection()), "the customer is gone")
    book.refresh()
    (letter,) = book.find(Selection(state=LetterState.DROPPED))

    assert report.done == [letter.letter_id]
    assert book.whole(letter) is not None
    assert bench.images == []
    action = book.action(letter)
    assert action is not None
    assert (action.actor, action.reason, action.at) == ("ana", "the customer is gone", NOW)
    (entry,) = bench.audit
    assert (entry.actor, entry.action, entry.subjects) == ("ana", "dead-letter-drop", (letter.letter_id,))
    assert entry.detail == {"run": "run-1", "reason": "the customer is gone"}
    bench.actions(book, run="run-2").redrive([letter])
    assert bench.submitted == ["e1"]
    assert list(bench.actions(book, run="run-3").drop([letter], "late").already.values()) == [LetterState.REDRIVEN]


def test_two_copies_of_a_letter_are_one_letter(bench: LetterBench) -> None:
    bench.letter(event(), offset=3)
    bench.letter(event(), offset=3, failed_at=NOW + timedelta(seconds=1))
    book = bench.book()

    assert len(book.find(Selection())) == 1
    bench.actions(book).redrive(book.find(Selection()))
    assert bench.submitted == ["e1"]


def test_a_selection_takes_what_meets_every_condition(bench: LetterBench) -> None:
    bench.letter(event("old", "acme"), partition=1, failed_at=NOW - timedelta(days=1))
    bench.letter(event("new", "acme"), partition=2, reason=FailureReason.ACCESS_DENIED)
    bench.letter(event("other", "umbrella"), partition=1)
    bench.letter(b"{", reason=FailureReason.MALFORMED_EVENT)
    book = bench.book()

    def found(**conditions: object) -> list[str]:
        return sorted(letter.event_id for letter in book.find(Selection(**conditions)))  # type: ignore[arg-type]

    assert found(tenants=frozenset({"acme"})) == ["new", "old"]
    assert found(tenants=frozenset({"acme"}), since=NOW - timedelta(hours=1)) == ["new"]
    assert found(until=NOW) == ["old"]
    assert found(reasons=frozenset({FailureReason.ACCESS_DENIED, FailureReason.MALFORMED_EVENT})) == [
        "new", "record:images.in/0/3",
    ]  # fmt: skip
    assert found(partitions=frozenset({1})) == ["old", "other"]
    assert found(text="OTHER") == ["other"]
    first = book.find(Selection(text="other"))[0]
    assert found(ids=(first.letter_id[:8],)) == ["other"]
    assert book.find(EVERY)[-1].event_id == "old"


def test_the_tenant_of_a_letter_written_before_letters_named_it_is_found_in_its_record(bench: LetterBench) -> None:
    bench.letter(event("e1", "umbrella"), tenant=None)
    assert [letter.tenant for letter in bench.book().find(Selection())] == ["umbrella"]


def test_records_that_are_no_letters_are_counted_and_passed_over(bench: LetterBench) -> None:
    bench.topics.append([Output(bench.names.dead, b"{}"), Output(bench.names.dead_actions, b"\xff", b"k")])
    bench.letter(event())
    book = bench.book()

    assert book.unreadable == 2
    assert len(book.find(Selection())) == 1


def test_of_too_many_letters_the_oldest_are_let_go_and_counted(bench: LetterBench) -> None:
    for number in range(5):
        bench.letter(event(f"e{number}"))
    book = LetterBook(bench.reader, bench.names, lambda: 0.0, most=3)
    book.refresh()

    assert book.left_out == 2
    assert len(book.find(EVERY)) == 3


_STEPS = st.lists(
    st.tuples(st.sampled_from(["redrive", "drop", "refresh", "fail before", "fail after"]), st.integers(0, 1)),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_whatever_two_people_do_at_once_no_event_is_submitted_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    bench = LetterBench(tmp_path_factory.mktemp("log"))
    with bench.stack:
        for number in range(3):
            bench.letter(event(f"e{number}"))
        books = [bench.book(), bench.book()]
        told: list[str] = []
        for turn, (step, person) in enumerate(steps):
            book = books[person]
            if step == "refresh":
                book.refresh()
                continue
            writer: EmbeddedWriter | LosesTheAnswer = EmbeddedWriter(bench.settings, bench.folder)
            if step.startswith("fail"):
                writer = LosesTheAnswer(writer, step == "fail after")
            actions = bench.actions(book, writer, actor=f"person-{person}", run=f"run-{turn}")
            letters = book.find(Selection())[: 1 + turn % 3]
            report = actions.drop(letters, "no") if step == "drop" else actions.redrive(letters)
            told += [] if step == "drop" else report.done
            writer.close()
        assert len(set(bench.submitted)) == len(bench.submitted)
        assert len(told) == len(set(told)) == len(bench.submitted)
