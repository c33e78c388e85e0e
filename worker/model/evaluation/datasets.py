"""Reads images with human scores, from a CSV file or a published data set in its original layout."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.model.data import DATA_SETS, DataError, Example, read_data_set
from worker.model.evaluation.published import PUBLISHED, Row, csv_records

COLUMNS = "image, mos and, where known, prompt, align, group (or generator)"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of the human scores, mapped linearly to 1..5."""

    lowest: float = 1
    highest: float = 5

    def to_quality(self, score: float) -> float:
        """1..5."""
        return 1 + 4 * (score - self.lowest) / (self.highest - self.lowest)


def read_examples(path: Path, scale: Scale | None = None, *, single_prompts: bool = False) -> list[Example]:
    """The examples of a CSV file, or of the folder of a published data set, recognized by its files.

    CSV columns: image (relative to the file), mos on `scale`, and optionally prompt (images with the same prompt stay
    together in every split), group or generator, align (how well the image fits its prompt, on `scale`; may be empty).
    A prompt with only one image is refused unless `single_prompts`. Raises DataError, which names file, row and column.
    """
    if path.is_file():
        return _read_csv(path, scale or Scale(), single_prompts)
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; use a CSV file with {COLUMNS}, or a data set's folder")
    for data_set in DATA_SETS:
        if path.name == data_set.name and (path / "scores.csv").is_file():
            return read_data_set(path.parent, data_set)
    for published in PUBLISHED:
        if published.is_here(path):
            return [
                _example(f"{path}, {row.where}", row, published.name, Scale(published.lowest, published.highest))
                for row in published.read(path)
            ]
    known = "; ".join(f"{published.name}: {published.layout}" for published in PUBLISHED)
    raise DataError(f"{path}: holds no data set in a known layout ({known}); a CSV file with {COLUMNS} always works")


def _read_csv(file: Path, scale: Scale, single_prompts: bool) -> list[Example]:
    rows = list(_rows(file))
    if not rows:
        raise DataError(f"{file}: has no rows; expected {COLUMNS}")
    _check_repeats(file, rows)
    if not single_prompts:
        _check_prompts(file, rows)
    return [_example(f"{file}, {row.where}", row, file.stem, scale) for row in rows]


def _rows(file: Path) -> Iterator[Row]:
    for where, record in csv_records(file, ("image", "mos"), _advice):
        yield _row(file, where, record)


def _advice(columns: Sequence[str]) -> str:
    return f", expected {COLUMNS}{_other_separator(columns)}"


def _other_separator(columns: Sequence[str]) -> str:
    found = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in "".join(columns)), None)
    return "" if found is None else f"; save it with commas in place of {found}"


def _row(file: Path, where: str, record: Mapping[str, str]) -> Row:
    if not record["image"].strip():
        raise DataError(f"{file}, {where}: image is empty; expected a path relative to {file.parent}")
    generator = record.get("generator") or record.get("group") or UNKNOWN
    return Row(
        where,
        file.parent / record["image"].strip(),
        record["mos"],
        record.get("prompt", ""),
        generator.strip(),
        align=record.get("align") or None,
    )


def _check_repeats(file: Path, rows: Sequence[Row]) -> None:
    seen: dict[Path, str] = {}
    for row in rows:
        if (before := seen.setdefault(row.image, row.where)) != row.where:
            raise DataError(
                f"{file}, {row.where}: {row.image} is already in {before}, and a split could separate them; keep one"
            )


def _check_prompts(file: Path, rows: Sequence[Row]) -> None:
    numbers = Counter(row.prompt.strip() for row in rows if row.prompt.strip())
    for row in rows:
        if numbers.get(row.prompt.strip()) == 1:
            raise DataError(
                f"{file}, {row.where}: the prompt {row.prompt.strip()[:60]!r} has only one image, so a split by "
                "prompt does not work for it; add images, leave the prompt empty, or use --single-prompts"
            )


def _example(where: str, row: Row, dataset: str, scale: Scale) -> Example:
    score = _rated(where, "mos", row.score, scale)
    alignment = None if row.align is None else _rated(where, "align", row.align, scale)
    if alignment is not None and not row.prompt.strip() and not row.group:
        raise DataError(f"{where}: align is set, but prompt is empty")
    if not row.image.is_file():
        slashes = "; write its path with / instead of \\" if "\\" in row.image.name else ""
        raise DataError(f"{where}: no image {row.image}{slashes}")
    prompt = row.prompt.strip()
    return Example(row.image, score, dataset, row.group or prompt or str(row.image), row.generator, prompt, alignment)


def _rated(where: str, column: str, written: Any, scale: Scale) -> float:
    """The human score, on 1..5."""
    try:
        score = float(written)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {column} is {written!r}, not a number") from None
    if not math.isfinite(score):
        raise DataError(f"{where}: {column} is {written!r}; every image needs a finite score: remove the row")
    if not scale.lowest <= score <= scale.highest:
        raise DataError(
            f"{where}: {column} is {score:g}, outside {scale.lowest:g} to {scale.highest:g}; set the scale with --scale"
        )
    return scale.to_quality(score)
