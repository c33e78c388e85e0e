"""Images with human scores, and how they are split."""

import csv
import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.samples.sample import SAMPLES


class DataError(Exception):
    """A data set cannot be used. The message names file and row."""


@dataclass(frozen=True, slots=True)
class Example:
    """An image and how people rated it, on the model's scale of 1 to 5.

    Examples of one `group` (those of one prompt) always stay on one side of a split. `prompt`: the text that the image
    was made from, empty where it is not known; `alignment`: how well it fits it, where people rated that.
    """

    image: Path
    score: float
    dataset: str
    group: str
    generator: str
    prompt: str = ""
    alignment: float | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """A published data set in the layout of its folder: `scores.csv` beside `images/`."""

    name: str
    title: str
    score_column: str
    lowest: float
    highest: float
    """The scale on which its people scored, mapped linearly to 1..5."""
    group: Callable[[dict[str, str]], str]
    generator: Callable[[dict[str, str]], str]
    license: str
    prompt: Callable[[dict[str, str]], str] = lambda _: ""
    alignment_column: str = ""


AGIQA_3K = DataSet(
    name="agiqa3k",
    title="AGIQA-3K (Li et al., 2023)",
    score_column="mos_quality",
    lowest=0,
    highest=5,
    group=lambda row: row["prompt"].strip(),
    generator=lambda row: row["generator"],
    license="MIT",
    prompt=lambda row: row["prompt"].strip(),
    alignment_column="mos_align",
)

LIVE_CHALLENGE = DataSet(
    name="livec",
    title="LIVE In the Wild Image Quality Challenge Database (Ghadiyaram and Bovik, 2015)",
    score_column="mos",
    lowest=0,
    highest=100,
    group=lambda row: row["image"],
    generator=lambda _: "camera",
    license="free for any use with its notice",
)

DATA_SETS = (AGIQA_3K, LIVE_CHALLENGE)


def read_data_set(data: Path, data_set: DataSet) -> list[Example]:
    """The examples of `data`/`data_set.name`, in file order. Raises DataError."""
    table = data / data_set.name / "scores.csv"
    if not table.is_file():
        raise DataError(f"{table}: no such file; {data_set.title} belongs in {table.parent}, images in images/")
    with table.open(newline="", encoding="utf-8") as file:
        return [
            _example(f"{table}, line {line}", table.parent / "images", data_set, row)
            for line, row in enumerate(csv.DictReader(file), start=2)
        ]


def _example(where: str, images: Path, data_set: DataSet, row: dict[str, str]) -> Example:
    try:
        image, group, generator = images / row["image"], data_set.group(row), data_set.generator(row)
        score = _rated(where, data_set, row, data_set.score_column)
        column = data_set.alignment_column
        alignment = _rated(where, data_set, row, column) if column in row else None
        prompt = data_set.prompt(row)
    except KeyError as error:
        raise DataError(f"{where}: no column {error}; the columns are {sorted(row)}") from None
    if not image.is_file():
        raise DataError(f"{where}: no image {image}")
    return Example(image, score, data_set.name, group, generator, prompt, alignment)


def _rated(where: str, data_set: DataSet, row: dict[str, str], column: str) -> float:
    """What people gave, on 1..5."""
    try:
        score = float(row[column])
    except (TypeError, ValueError):
        raise DataError(f"{where}: {column} is {row[column]!r}, not a number") from None
    if not data_set.lowest <= score <= data_set.highest:
        raise DataError(f"{where}: {column} is {score}, outside {data_set.lowest:g} to {data_set.highest:g}")
    return 1 + 4 * (score - data_set.lowest) / (data_set.highest - data_set.lowest)


def without_samples(examples: Iterable[Example], samples: Path = SAMPLES) -> list[Example]:
    """The examples that are no shipped sample, by content, and share no prompt with one."""
    with (samples / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    prompts = {row["prompt"].strip() for row in rows}
    contents = {_content_hash(samples / "images" / row["image"]) for row in rows}
    return [
        example for example in examples if example.group not in prompts and _content_hash(example.image) not in contents
    ]


def _content_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def split_folds(examples: Sequence[Example], count: int, seed: int) -> list[int]:
    """The fold of each example: whole groups, dealt out in an order drawn from the seed, data set by data set. A group
    that several data sets know stays together, too."""
    folds: dict[str, int] = {}
    for data_set in sorted({example.dataset for example in examples}):
        groups = sorted({example.group for example in examples if example.dataset == data_set} - folds.keys())
        random.Random(seed).shuffle(groups)  # noqa: S311 - a reproducible split, no secret
        folds |= {group: index % count for index, group in enumerate(groups)}
    return [folds[example.group] for example in examples]
