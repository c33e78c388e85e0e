"""The demo: its files, its stream, and what comes out of the whole path."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas import FailureReason, ImageEvent
from worker.demo import run
from worker.demo.errors import DemoFailed
from worker.demo.hostile import BOMB_SIDE, write_hostile_files
from worker.demo.run import DemoResult, run_demo
from worker.demo.traffic import REPEATED, TrafficMaker, degraded_copies
from worker.rank_correlation import rank_correlation
from worker.samples.degrade import DEGRADATIONS
from worker.samples.sample import load_samples
from worker.settings import Settings

SAMPLES = load_samples()


def test_the_samples_are_all_there_with_scores_on_the_scale() -> None:
    assert len(SAMPLES) == 30
    assert len({sample.generator for sample in SAMPLES}) == 6
    assert all(sample.path.is_file() and 0 <= sample.human <= 5 and sample.prompt for sample in SAMPLES)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degraded_copy_is_of_the_same_size_and_clearly_another_and_each_time_the_same(name: str) -> None:
    image = Image.open(SAMPLES[8].path).convert("RGB")
    data = DEGRADATIONS[name](image)
    copy = Image.open(BytesIO(data))

    assert copy.size == image.size
    assert np.abs(np.asarray(copy, float) - np.asarray(image, float)).mean() > 2
    assert data == DEGRADATIONS[name](image)


def test_the_bomb_is_a_true_image_that_is_small_outside_and_huge_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = write_hostile_files(tmp_path, SAMPLES[0].path.read_bytes())["bomb.png"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    assert bomb.stat().st_size < 100_000
    with Image.open(bomb) as image:
        assert image.size == (BOMB_SIDE, BOMB_SIDE)
        assert image.convert("1").getextrema() == (0, 0)


def test_the_stream_has_an_event_for_every_picture_and_ids_of_its_own(tmp_path: Path) -> None:
    copies = list(degraded_copies(SAMPLES[:6], tmp_path))
    first, second = (TrafficMaker().make(SAMPLES[:6], copies, tmp_path) for _ in range(2))

    assert len(copies) == 6 * len(DEGRADATIONS)
    assert first.first.verdicts + first.second.verdicts == len(first.pictures) + 1
    assert len(first.second.records) == REPEATED + 1
    assert not first.pictures.keys() & second.pictures.keys()
    events = [ImageEvent.model_validate_json(value) for key, value in first.first.records if b"demo-" in key]
    assert [event.id for event in events] == list(first.pictures)[: len(events)]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    data = tmp_path_factory.mktemp("demo")
    seen: dict[str, tuple[int, int]] = {}
    result = run_demo(Settings(), data, lambda what, done, total: seen.update({what: (done, total)}))
    assert seen == {"spoiling copies": (120, 120), "judging": (164, 164)}
    return result


def test_every_event_is_judged_and_repeats_come_from_the_cache(result: DemoResult) -> None:
    assert result.tally.total == 164
    assert result.tally.cached == REPEATED + 1
    assert result.tally.scored == 150 + REPEATED + 1
    assert result.ignored == 1


def test_every_hostile_event_is_a_dead_letter_with_its_reason(result: DemoResult) -> None:
    assert result.dead == result.tally.reasons
    assert result.dead == {
        FailureReason.MALFORMED_EVENT: 1,
        FailureReason.TRUNCATED_IMAGE: 1,
        FailureReason.IMAGE_TOO_LARGE: 1,
        FailureReason.UNSUPPORTED_FORMAT: 1,
        FailureReason.IMAGE_NOT_FOUND: 1,
        FailureReason.REFERENCE_REFUSED: 2,
        FailureReason.HASH_MISMATCH: 1,
    }


def test_the_review_topic_holds_what_the_verdicts_sent_there(result: DemoResult) -> None:
    sent = {queue: number for (action, queue), number in result.tally.routes.items() if action == "review"}

    assert result.queues == sent
    assert result.queues["failures"] == 8


def test_the_scores_agree_with_people_and_copies_score_lower(result: DemoResult) -> None:
    judged = [entry for entry in result.tally.worst if entry.human is not None]
    correlation = rank_correlation(
        [entry.human for entry in judged if entry.human is not None],
        [entry.quality for entry in judged if entry.quality is not None],
    )
    originals = {entry.name: entry.quality for entry in result.tally.worst if entry.original is None}
    changes = [
        (entry.quality or 0) - (originals[entry.original] or 0)
        for entry in result.tally.worst
        if entry.original is not None
    ]

    assert len(judged) == 30
    assert correlation is not None
    assert correlation > 0.6
    assert len(changes) == 120
    assert sum(changes) / len(changes) < 0


def test_a_second_run_in_the_same_folder_counts_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_samples", lambda: SAMPLES[:6])
    first, second = (run_demo(Settings(), tmp_path, lambda *_: None) for _ in range(2))

    assert first.tally.total == second.tally.total == 6 + 24 + 8 + REPEATED + 1
    assert first.dead == second.dead


def test_a_worker_that_ends_early_is_an_error_and_not_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deserter:
        def run(self, stop: object) -> None: ...

    monkeypatch.setattr(run, "load_samples", lambda: SAMPLES[:2])
    monkeypatch.setattr(run, "build_embedded_worker", lambda settings, data: Deserter())
    with pytest.raises(DemoFailed, match="the worker ended"):
        run_demo(Settings(), tmp_path, lambda *_: None)


def test_a_worker_that_never_judges_is_an_error_after_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    class Idler:
        def run(self, stop: threading.Event) -> None:
            stop.wait()

    monkeypatch.setattr(run, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(run, "load_samples", lambda: SAMPLES[:2])
    monkeypatch.setattr(run, "build_embedded_worker", lambda settings, data: Idler())
    with pytest.raises(DemoFailed, match="only 0 of"):
        run_demo(Settings(), tmp_path, lambda *_: None)
