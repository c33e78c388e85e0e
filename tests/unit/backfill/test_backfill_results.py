"""A backfill's log and folder: each image is written once, whenever a run ends, and a listing of any length fits."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas import S3Reference
from worker.backfill.backfill_log import LISTING, BackfillLog
from worker.backfill.request import BackfillRequest, Shard
from worker.backfill.result_folder import BackfillError, ResultFolder
from worker.intake.log import Output, Record
from worker.scoring.stores import FolderStore, RepositoryError

REQUEST = BackfillRequest("bucket", "images/", "default", "sha256:" + "a" * 64, "sha256:" + "b" * 64)


def images(count: int, after: str = "") -> Iterator[S3Reference]:
    keys = (f"images/{number:07d}.png" for number in range(count))
    return (S3Reference(bucket="bucket", key=key, etag="e") for key in keys if key > after)


def verdict(record: Record, failure: str | None = None) -> Output:
    event = json.loads(record.value or b"")
    value: dict[str, Any] = {
        "event_id": event["id"],
        "verdict_id": "v",
        "image": event["image"],
        "content_hash": None,
        "tenant": "default",
        "judged_at": "2026-12-01T00:00:00Z",
        "scores": None if failure else {"quality": 3.5},
        "failure": {"reason": failure} if failure else None,
        "route": {"action": "pass", "queue": None, "rule": "default", "labels": ["a"]},
        "model": REQUEST.model,
        "policy": REQUEST.policy,
    }
    return Output("images.verdicts", json.dumps(value).encode())


def opened(results: ResultFolder, count: int, **more: Any) -> BackfillLog:
    log = BackfillLog(images(count, results.state.after_key), REQUEST, results, verdicts="images.verdicts", **more)
    assert log.poll(0).assigned == {LISTING}
    return log


def judge(log: BackfillLog, records: list[Record], most: int) -> None:
    """Commits the first of the records, with review items beside them."""
    done = records[:most]
    outputs = [each for record in done for each in (verdict(record), Output("images.review", b"{}"))]
    log.commit(outputs, {LISTING: done[-1].offset + 1})
    del records[:most]


def written(folder: Path) -> list[str]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [key for part in parts for key in pq.read_table(part)["key"].to_pylist()]


def test_a_run_that_stopped_goes_on_behind_what_was_written_and_repeats_nothing(tmp_path: Path) -> None:
    log = opened(ResultFolder(FolderStore(tmp_path), REQUEST), 30)
    records = list(log.poll(0).records)
    judge(log, records, 7)
    judge(log, records, 5)

    results = ResultFolder(FolderStore(tmp_path), REQUEST)
    assert (results.state.judged, results.state.after_key) == (12, "images/0000011.png")
    again = opened(results, 30)
    judge(again, list(again.poll(0).records), 18)
    assert not again.poll(0).records
    assert again.is_over
    assert written(tmp_path) == [f"images/{number:07d}.png" for number in range(30)]


def test_a_part_without_its_state_is_written_again_in_its_place(tmp_path: Path) -> None:
    class Dies(FolderStore):
        def write(self, name: str, data: bytes) -> None:
            if name.startswith("state-"):
                raise RepositoryError("the process died")
            super().write(name, data)

    log = opened(ResultFolder(Dies(tmp_path), REQUEST), 9)
    with pytest.raises(Exception, match="died"):
        judge(log, list(log.poll(0).records), 4)
    assert len(written(tmp_path)) == 4

    again = opened(ResultFolder(FolderStore(tmp_path), REQUEST), 9)
    judge(again, list(again.poll(0).records), 9)
    assert written(tmp_path) == [f"images/{number:07d}.png" for number in range(9)]


def test_a_row_has_what_is_asked_for_most_and_the_whole_verdict(tmp_path: Path) -> None:
    results = ResultFolder(FolderStore(tmp_path), REQUEST)
    log = opened(results, 2)
    first, second = log.poll(0).records
    log.commit([verdict(first), verdict(second, "fetch_failed")], {LISTING: 2})
    (part,) = tmp_path.glob("*.parquet")
    good, bad = pq.read_table(part).to_pylist()
    assert (good["bucket"], good["key"], good["quality"]) == ("bucket", "images/0000000.png", 3.5)
    assert (good["labels"], good["failure"]) == (["a"], None)
    assert (bad["quality"], bad["failure"]) == (None, "fetch_failed")
    assert json.loads(good["verdict"])["event_id"] == good["event_id"]
    assert results.state.failed == 1


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    results = ResultFolder(FolderStore(tmp_path), REQUEST)
    results.write([], "images/1.png")
    other = BackfillRequest("bucket", "other/", "default", REQUEST.model, REQUEST.policy)
    with pytest.raises(BackfillError, match=r"of another run .*choose another folder"):
        ResultFolder(FolderStore(tmp_path), other)
    sharded = BackfillRequest("bucket", "images/", "default", REQUEST.model, REQUEST.policy, Shard(0, 2))
    with pytest.raises(BackfillError, match="another number of shards"):
        ResultFolder(FolderStore(tmp_path), sharded)


def test_shards_have_each_key_once() -> None:
    keys = [image.key for image in images(500)]
    shards = [{key for key in keys if Shard(number, 3).has(key)} for number in range(3)]
    assert sum(map(len, shards)) == 500
    assert set().union(*shards) == set(keys)
    assert min(map(len, shards)) > 100


def test_no_more_images_begin_in_a_second_than_allowed(tmp_path: Path) -> None:
    now = [0.0]
    log = opened(ResultFolder(FolderStore(tmp_path), REQUEST), 1000, per_second=20.0, clock=lambda: now[0])
    begun = 0
    for _ in range(100):
        begun += len(log.poll(0).records)
        now[0] += 0.1
    assert 190 <= begun <= 221


def test_a_listing_of_any_length_takes_the_same_memory(tmp_path: Path) -> None:
    results = ResultFolder(FolderStore(tmp_path), REQUEST)
    results.write = lambda verdicts, after_key: None  # type: ignore[method-assign]  # what is measured is the log
    log = opened(results, 24_000)

    def judge_some(polls: int) -> int:
        for _ in range(polls):
            records = log.poll(0).records
            log.commit([Output("images.verdicts", b"")] * len(records), {LISTING: records[-1].offset + 1})
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = judge_some(10)
        late = judge_some(35)
    finally:
        tracemalloc.stop()
    assert late - early < 50_000
