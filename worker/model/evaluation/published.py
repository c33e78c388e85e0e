"""Published data sets of generated images, in the layouts in which they are distributed.

AGIQA-3K and AGIQA-1K are read as the tables in their authors' repositories are (verified against these). The layouts
of AIGCIQA2023, PKU-I2IQA and AIGIQA-20K are taken from how several published programs read them, and were never run on
the files themselves.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.model.data import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """An image as a table names it: `where` it stands there, its file, its score as written, prompt and generator."""

    where: str
    image: Path
    score: Any
    prompt: str
    generator: str


@dataclass(frozen=True, slots=True)
class Published:
    """A data set: how to tell it by its table, how to read it, and the scale of its scores."""

    name: str
    layout: str
    table: str
    read: Callable[[Path], Iterator[Row]]
    lowest: float
    highest: float

    def is_here(self, folder: Path) -> bool:
        return (folder / self.table).is_file()


def _agiqa_3k(folder: Path) -> Iterator[Row]:
    """data.csv: name, prompt, adj1, adj2, style, mos_quality, … ; the generator begins an image's name."""
    for where, cells in _csv(folder / "data.csv", ("name", "prompt", "mos_quality")):
        name = cells["name"]
        yield Row(where, _find(folder, name), cells["mos_quality"], cells["prompt"], name.split("_")[0])


def _agiqa_1k(folder: Path) -> Iterator[Row]:
    """AIGC_all.csv: Image, Score; a name is model_object_action_place_style, and all but the model make the prompt."""
    for where, cells in _csv(folder / "AIGC_all.csv", ("Image", "Score")):
        generator, _, prompt = Path(cells["Image"]).stem.partition("_")
        yield Row(where, _find(folder, cells["Image"]), cells["Score"], prompt, generator)


def _aigciqa_2023(folder: Path) -> Iterator[Row]:
    """DATA/MOS/mosz1.mat: MOSz, 6 generators x 100 prompts x 4 images, as Image/allimg/{0…2399}.png."""
    from scipy.io import loadmat

    file = folder / "DATA" / "MOS" / "mosz1.mat"
    try:
        scores = loadmat(file)["MOSz"].flatten()
    except (KeyError, ValueError, NotImplementedError) as error:
        raise DataError(f"{file}: expected a matrix MOSz: {error}") from error
    if len(scores) != 2400:
        raise DataError(f"{file}: MOSz holds {len(scores)} scores, expected 2400")
    for index, score in enumerate(scores):
        generator, within = divmod(index, 400)
        image = folder / "Image" / "allimg" / f"{index}.png"
        yield Row(f"image {index}", image, float(score), f"prompt {within // 4}", f"generator {generator}")


def _pku_i2iqa(folder: Path) -> Iterator[Row]:
    """I2IQA_annotation.xlsx: image prompt, text prompt, name, three scores of which the first is quality."""
    for where, cells in _xlsx(folder / "I2IQA_annotation.xlsx", 6):
        yield Row(
            where, folder / "Generated_image" / "All" / str(cells[2]), cells[3], f"{cells[0]} {cells[1]}", "unknown"
        )


def _aigiqa_20k(folder: Path) -> Iterator[Row]:
    """info_train.xlsx (and info_val.xlsx, info_test.xlsx where they carry scores): name, prompt, mos."""
    for split in ("train", "val", "test"):
        file = folder / f"info_{split}.xlsx"
        if not file.is_file():
            continue
        for where, cells in _xlsx(file, 3):
            name = str(cells[0])
            yield Row(f"{file.name}, {where}", folder / split / name, cells[2], str(cells[1]), name.rpartition("_")[0])


PUBLISHED: Sequence[Published] = (
    Published("AGIQA-3K", "data.csv beside the images", "data.csv", _agiqa_3k, 0, 5),
    Published("AGIQA-1K", "AIGC_all.csv and file/", "AIGC_all.csv", _agiqa_1k, 0, 5),
    Published("AIGCIQA2023", "DATA/MOS/mosz1.mat and Image/allimg/", "DATA/MOS/mosz1.mat", _aigciqa_2023, 0, 100),
    Published(
        "PKU-I2IQA", "I2IQA_annotation.xlsx and Generated_image/All/", "I2IQA_annotation.xlsx", _pku_i2iqa, 0, 100
    ),
    Published("AIGIQA-20K", "info_train.xlsx and train/", "info_train.xlsx", _aigiqa_20k, 0, 5),
)


def _find(folder: Path, name: str) -> Path:
    """Archives unpack to the folder itself or to one below it, by taste."""
    places = [folder, *(folder / below for below in ("images", "all", "file"))]
    return next((place / name for place in places if (place / name).is_file()), folder / name)


def _csv(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    with file.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened)
        if missing := set(columns) - set(reader.fieldnames or ()):
            raise DataError(
                f"{file}, line 1: no column {' and '.join(sorted(missing))}; the columns are "
                f"{', '.join(reader.fieldnames or ())}"
            )
        for cells in reader:
            yield f"line {reader.line_num}", cells


def _xlsx(file: Path, columns: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(f"{file}: reading it needs openpyxl: pip install 'sluice[train]'") from error
    sheet = load_workbook(file, read_only=True, data_only=True).worksheets[0]
    for line, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if len(cells) < columns:
            raise DataError(f"{file}, row {line}: {len(cells)} cells, expected {columns} or more")
        if line > 1 and any(cell is not None for cell in cells):
            yield f"row {line}", cells
