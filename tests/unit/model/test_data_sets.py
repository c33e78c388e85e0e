"""Reading, splitting, and keeping the samples out."""

import csv
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from worker.model.data import (
    AGIQA_3K,
    LIVE_CHALLENGE,
    DataError,
    Example,
    read_data_set,
    split_folds,
    without_samples,
)
from worker.samples.sample import SAMPLES

COLUMNS = "image,generator,prompt,mos_quality"


def write_agiqa(folder: Path, *rows: str, header: str = COLUMNS) -> Path:
    images = folder / "agiqa3k" / "images"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(b"a")
    (images / "b.jpg").write_bytes(b"b")
    (folder / "agiqa3k" / "scores.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder


def test_scores_come_onto_the_models_scale(tmp_path: Path) -> None:
    worst, best = read_data_set(write_agiqa(tmp_path, "a.jpg,glide,a hill,0", "b.jpg,sd1.5,a hill,5"), AGIQA_3K)
    assert (worst.score, best.score) == (1, 5)
    assert (worst.group, worst.generator, worst.dataset) == ("a hill", "glide", "agiqa3k")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,glide,a hill,good", "line 3: mos_quality is 'good', not a number"),
        ("a.jpg,glide,a hill,nan", "line 3: mos_quality is nan, outside 0 to 5"),
        ("a.jpg,glide,a hill,7", "line 3: mos_quality is 7.0, outside 0 to 5"),
        ("c.jpg,glide,a hill,3", "line 3: no image .*c.jpg"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    folder = write_agiqa(tmp_path, "b.jpg,glide,a hill,2", row)
    with pytest.raises(DataError, match=message):
        read_data_set(folder, AGIQA_3K)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = write_agiqa(tmp_path, "a.jpg,glide,2", header="image,generator,mos_quality")
    with pytest.raises(DataError, match="line 2: no column 'prompt'"):
        read_data_set(folder, AGIQA_3K)


def test_a_missing_data_set_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"livec/scores\.csv: no such file"):
        read_data_set(tmp_path, LIVE_CHALLENGE)


def make_examples(prompts: int, each: int, dataset: str = "agiqa3k") -> list[Example]:
    return [
        Example(Path(f"{prompt}-{index}.jpg"), 3, dataset, f"prompt {prompt}", "glide")
        for prompt in range(prompts)
        for index in range(each)
    ]


def test_a_prompt_never_stands_in_two_folds() -> None:
    examples = make_examples(prompts=23, each=4) + make_examples(prompts=11, each=1, dataset="livec")
    folds = split_folds(examples, 5, seed=1)
    of_group = defaultdict(set)
    for example, fold in zip(examples, folds, strict=True):
        of_group[example.dataset, example.group].add(fold)
    assert all(len(found) == 1 for found in of_group.values())
    assert set(folds) == set(range(5))


def test_folds_repeat_with_their_seed_and_not_with_another() -> None:
    examples = make_examples(prompts=40, each=2)
    assert split_folds(examples, 5, seed=1) == split_folds(examples, 5, seed=1)
    assert split_folds(examples, 5, seed=1) != split_folds(examples, 5, seed=2)


def test_samples_their_copies_and_their_prompts_stay_out(tmp_path: Path) -> None:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        sample = next(csv.DictReader(file))
    copy = shutil.copyfile(SAMPLES / "images" / sample["image"], tmp_path / "renamed.jpg")
    stranger = tmp_path / "stranger.jpg"
    stranger.write_bytes(b"another image")
    examples = [
        Example(copy, 3, "agiqa3k", "another prompt", "glide"),
        Example(stranger, 3, "agiqa3k", sample["prompt"], "glide"),
        Example(stranger, 3, "agiqa3k", "another prompt", "glide"),
    ]
    assert without_samples(examples) == examples[2:]


def test_the_samples_cover_every_generator_and_are_thirty() -> None:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {row["generator"] for row in rows} == {"AttnGAN", "DALLE2", "glide", "midjourney", "sd1.5", "xl2.2"}
    assert all((SAMPLES / "images" / row["image"]).is_file() for row in rows)
