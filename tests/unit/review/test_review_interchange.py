"""Items and votes as files of other tools."""

import csv
import io
import json
from typing import Any

import pytest

from tests.unit.review.review_bench import ReviewBench, review_item
from worker.review.answers import Query, Status
from worker.review.interchange import READERS, WRITERS, InterchangeError, Refusal
from worker.review.interchange.label_studio import config
from worker.review.interchange.votes import BroughtIn, bring_in


def exported(bench: ReviewBench, format_: str) -> str:
    file = io.StringIO(newline="")
    items = bench.desk.search(Query()).items
    assert WRITERS[format_](items, file) == len(items)
    return file.getvalue()


def imported(bench: ReviewBench, format_: str, text: str) -> list[BroughtIn | Refusal]:
    return list(bring_in(bench.desk, READERS[format_](io.StringIO(text, newline=""))))


def judged() -> ReviewBench:
    bench = ReviewBench()
    bench.items(
        review_item("a", prompt='=HYPERLINK("http://evil")', image={"kind": "s3", "bucket": "b", "key": "k.png"})
    )
    bench.items(review_item("b", prompt='two, "cats"\nand a dog', priority=0))
    lease = bench.one("ann@example.com")
    bench.decide(lease, "reject", labels=("anatomy", "blurry"), note="- six fingers", seconds_spent=2.5)
    return bench


@pytest.mark.parametrize("format_", ["jsonl", "csv", "label-studio"])
def test_what_is_exported_can_be_imported_elsewhere(format_: str) -> None:
    own = judged()
    text = exported(own, format_)
    other = ReviewBench()
    other.items(review_item("a"), review_item("b"))
    (brought,) = imported(other, format_, text)
    assert isinstance(brought, BroughtIn)
    assert brought.is_new
    (decision,) = other.desk.item("a").history
    assert (decision.reviewer, decision.outcome, decision.resolution) == ("ann@example.com", "reject", "reject")
    assert (decision.labels, decision.note, decision.seconds_spent) == (("anatomy", "blurry"), "- six fingers", 2.5)
    assert other.desk.item("b").status is Status.OPEN
    for desk in (other, own):  # read again, and read where it was written
        (brought,) = imported(desk, format_, text)
        assert isinstance(brought, BroughtIn)
        assert not brought.is_new
        assert len(desk.decisions()) == 1


def test_a_spreadsheet_runs_no_formula_of_a_strangers_prompt() -> None:
    rows = {row["item_id"]: row for row in csv.DictReader(io.StringIO(exported(judged(), "csv"), newline=""))}
    assert rows["a"]["prompt"] == '\'=HYPERLINK("http://evil")'
    assert rows["a"]["note"] == "'- six fingers"
    assert rows["b"]["prompt"] == 'two, "cats"\nand a dog'
    assert (rows["a"]["outcome"], rows["b"]["outcome"]) == ("reject", "")


def test_label_studio_gets_tasks_that_fit_its_configuration() -> None:
    from xml.etree import ElementTree

    tasks = {task["data"]["item_id"]: task for task in json.loads(exported(judged(), "label-studio"))}
    assert tasks["a"]["data"]["image"] == "s3://b/k.png"
    assert tasks["b"]["annotations"] == []
    tree = ElementTree.fromstring(config(['odd "label"', "blurry"]))
    names = {element.attrib["name"] for element in tree if "toName" in element.attrib}
    used = [result for task in tasks.values() for part in ("annotations", "predictions") for result in task[part]]
    assert {result["from_name"] for each in used for result in each["result"]} <= names
    assert tasks["a"]["predictions"][0]["result"][0]["value"] == {"number": 2.0}


def test_an_export_of_label_studio_itself_is_read() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"), review_item("b"))
    result = [{"from_name": "outcome", "to_name": "image", "type": "choices", "value": {"choices": ["approve"]}}]
    tasks = [
        {"id": 1, "data": {"item_id": "a"}, "annotations": [{"id": 9, "completed_by": 7, "result": result}]},
        {"id": 2, "data": {"item_id": "b"}, "annotations": [{"was_cancelled": True, "completed_by": 7, "result": []}]},
    ]
    (brought,) = imported(bench, "label-studio", json.dumps(tasks))
    assert isinstance(brought, BroughtIn)
    assert bench.desk.item("a").history[0].reviewer == "7"


@pytest.mark.parametrize(
    ("format_", "text", "place", "reason"),
    [
        ("jsonl", "{", "line 1", "not JSON"),
        ("jsonl", "[]", "line 1", "expected an object"),
        ("jsonl", '{"item_id": "a", "outcome": "maybe", "reviewer": "x"}', "line 1", "outcome"),
        ("jsonl", '\n{"item_id": "a", "outcome": "reject"}', "line 2", "reviewer"),
        ("jsonl", '{"item_id": "nowhere", "outcome": "reject", "reviewer": "x"}', "line 1", "no item nowhere"),
        ("jsonl", '{"item_id": "a", "outcome": "reject", "reviewer": "x", "seconds_spent": -1}', "line 1", "seconds"),
        ("csv", "item_id,outcome,reviewer\na,maybe,x\n", "line 2", "outcome"),
        ("csv", "item_id,outcome,reviewer\na,reject,x\na,approve,x\n", "line 3", "rejected"),
        ("label-studio", '[{"data": {}}]', "task 1", "data.item_id"),
        ("label-studio", "[3]", "task 1", "data.item_id"),
        ("label-studio", '[{"data": {"item_id": "a"}, "annotations": [{"result": []}]}]', "task 1", "no outcome"),
    ],
)
def test_what_is_no_vote_is_told_with_its_place(format_: str, text: str, place: str, reason: str) -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    refusals = [one for one in imported(bench, format_, text) if isinstance(one, Refusal)]
    assert [one.place for one in refusals] == [place]
    assert reason in refusals[0].reason


@pytest.mark.parametrize(
    ("format_", "text", "message"),
    [
        ("csv", "id,verdict\n1,2\n", "absent: item_id, outcome, reviewer"),
        ("csv", "", "absent"),
        ("label-studio", "{", "not JSON"),
        ("label-studio", "{}", "list of tasks"),
    ],
)
def test_a_file_of_another_kind_is_refused(format_: str, text: str, message: str) -> None:
    with pytest.raises(InterchangeError, match=message):
        imported(ReviewBench(), format_, text)


def test_a_vote_from_elsewhere_covers_no_near_duplicate_that_its_reviewer_did_not_see() -> None:
    bench = ReviewBench()
    digest: Any = "sha256:" + "1" * 64
    bench.items(review_item("a", content_hash=digest), review_item("b", content_hash=digest))
    imported(bench, "jsonl", '{"item_id": "a", "outcome": "reject", "reviewer": "x"}')
    assert (bench.desk.item("a").status, bench.desk.item("b").status) == (Status.REJECTED, Status.OPEN)


@pytest.mark.parametrize("format_", ["jsonl", "csv", "label-studio"])
def test_an_import_keeps_when_it_was_decided(format_: str) -> None:
    own = judged()
    (made,) = [d for d in own.desk.item("a").history if d.outcome == "reject"]
    text = exported(own, format_)
    other = ReviewBench()
    other.sleep(7 * 24 * 3600)
    other.items(review_item("a"), review_item("b"))
    imported(other, format_, text)
    (decision,) = other.desk.item("a").history
    assert decision.decided_at == made.decided_at
    assert other.desk.item("a").closed_at == made.decided_at


def test_a_vote_that_claims_to_be_of_the_future_was_made_now() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    line = {"item_id": "a", "outcome": "reject", "reviewer": "x", "decided_at": "2199-01-01T00:00:00Z"}
    imported(bench, "jsonl", json.dumps(line))
    assert bench.desk.item("a").history[0].decided_at == bench.now


@pytest.mark.parametrize(
    "text", ["=1+1", "\n=1+1", " =1+1", "\uff1d1+1", "\u3000\uff0b1", "\u200b-1", "'=1", "@SUM(1)", "\t+1", "'plain"]
)
def test_no_cell_of_a_stranger_is_taken_for_a_formula_and_each_is_read_back_as_it_was(text: str) -> None:
    bench = ReviewBench()
    bench.items(review_item("a", prompt=text))
    bench.decide(bench.one("ann"), "reject", note=text)
    written = exported(bench, "csv")
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    assert row["prompt"].startswith("'")
    assert row["note"].startswith("'")
    other = ReviewBench()
    other.items(review_item("a"))
    imported(other, "csv", written)
    assert other.desk.item("a").history[0].note == text
