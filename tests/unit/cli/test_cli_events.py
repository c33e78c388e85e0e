from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import FileReference, ImageEvent, InlineReference, S3Reference
from worker.cli.errors import UsageError
from worker.cli.events import EventMaker, UnreadableEvent, new_id, read_events, stable_id
from worker.cli.sources import ImageSource

NOW = datetime(2026, 1, 2, tzinfo=UTC)
S3 = ImageSource("s3://b/a.jpg", S3Reference(bucket="b", key="a.jpg", etag="1"))


def file_source(path: Path) -> ImageSource:
    return ImageSource(path.name, FileReference(path=str(path)))


def test_an_event_refers_to_the_image_and_carries_what_was_said_of_it() -> None:
    maker = EventMaker(tenant="acme", prompt="a cat", generator="sd", priority=7, clock=lambda: NOW)
    (event,) = maker.events([S3])

    assert isinstance(event, ImageEvent)
    assert (event.image, event.tenant, event.prompt, event.generator, event.priority, event.occurred_at) == (
        S3.reference, "acme", "a cat", "sd", 7, NOW,
    )  # fmt: skip


def test_inline_events_carry_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    (event,) = EventMaker(inline=True).events([file_source(path)])

    assert isinstance(event, ImageEvent)
    assert event.image == InlineReference(bytes=b"12345")


def test_a_file_over_the_limit_is_not_inlined_and_does_not_stop_the_others(tmp_path: Path) -> None:
    large, small = tmp_path / "large.jpg", tmp_path / "small.jpg"
    large.write_bytes(b"123456")
    small.write_bytes(b"12345")
    first, second = EventMaker(inline=True, max_bytes=5).events([file_source(large), file_source(small)])

    assert first == UnreadableEvent("large.jpg: more than images.max_bytes (5)")
    assert isinstance(second, ImageEvent)


def test_only_files_can_be_inlined() -> None:
    assert list(EventMaker(inline=True).events([S3])) == [UnreadableEvent("s3://b/a.jpg: --inline needs local files")]


def test_a_file_that_went_away_is_a_problem(tmp_path: Path) -> None:
    (problem,) = EventMaker(inline=True).events([file_source(tmp_path / "gone.jpg")])

    assert problem == UnreadableEvent("gone.jpg: No such file or directory")


def test_ids_are_new_each_time_unless_a_prefix_makes_them_follow_from_the_place() -> None:
    assert new_id("a") != new_id("a")
    make = stable_id("batch-7")
    assert make("a") == make("a") != make("b")
    assert make("a").startswith("batch-7-")


def test_the_same_file_has_the_same_stable_id_however_it_was_named() -> None:
    reference = FileReference(path="/data/a.jpg")
    maker = EventMaker(make_id=stable_id("x"))
    first, second = maker.events([ImageSource("a.jpg", reference), ImageSource("../data/a.jpg", reference)])

    assert isinstance(first, ImageEvent)
    assert isinstance(second, ImageEvent)
    assert first.id == second.id


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "x"}', b"\xff"])
def test_a_bad_line_is_named_by_number_and_the_next_is_read(line: bytes, tmp_path: Path) -> None:
    (event,) = EventMaker().events([S3])
    assert isinstance(event, ImageEvent)
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([b"", line, event.model_dump_json(by_alias=True).encode()]))
    problem, read = read_events(path)

    assert isinstance(problem, UnreadableEvent)
    assert problem.message.startswith(f"{path}, line 2: ")
    assert read == event


def test_a_file_that_cannot_be_read_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_events(tmp_path / "none.jsonl"))
