"""Published data sets of generated images, in the layouts in which they are distributed.

AGIQA-3K and AGIQA-1K are read as the tables in their authors' repositories are (verified against these). The others can
be had on request or behind links only; their layouts are those that published programs read, named at each, and were
never run on the files themselves.
"""

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from worker.model.data import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """An image as a table names it: `where` it stands there, its file, its score as written, prompt and generator.

    `align`: how well it fits its prompt, as written; None where nobody was asked. `group`: the images that stay
    together in a split, where the prompt is not what tells.
    """

    where: str
    image: Path
    score: Any
    prompt: str
    generator: str
    align: Any = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A data set: how to tell it by one of its tables, how to read it, and the scale of its scores."""

    name: str
    layout: str
    tables: tuple[str, ...]
    read: Callable[[Path], Iterator[Row]]
    lowest: float
    highest: float

    def is_here(self, folder: Path) -> bool:
        return any((folder / table).is_file() for table in self.tables)


def _agiqa_3k(folder: Path) -> Iterator[Row]:
    """data.csv: name, prompt, adj1, adj2, style, mos_quality, std_quality, mos_align, std_align; the generator begins
    an image's name."""
    for where, cells in csv_records(folder / "data.csv", ("name", "prompt", "mos_quality", "mos_align")):
        name = cells["name"]
        yield Row(
            where,
            _find(folder, name),
            cells["mos_quality"],
            cells["prompt"],
            name.split("_")[0],
            align=cells["mos_align"],
        )


def _agiqa_1k(folder: Path) -> Iterator[Row]:
    """AIGC_all.csv: Image, Score; a name is model_object_action_place_style in numbers, of which all but the model make
    the prompt, and the words are nowhere."""
    for where, cells in csv_records(folder / "AIGC_all.csv", ("Image", "Score")):
        generator, _, prompt = Path(cells["Image"]).stem.partition("_")
        yield Row(where, _find(folder, cells["Image"]), cells["Score"], "", generator, group=prompt)


def _aigciqa_2023(folder: Path) -> Iterator[Row]:
    """DATA/MOS/mosz1.mat and mosz3.mat: MOSz, quality and correspondence of 6 generators x 100 prompts x 4 images, as
    Image/allimg/{0…2399}.png; AIGCIQA2023_Prompts.xlsx, without a header: the prompt stands third.

    As the authors' README tells the matrices (github.com/wangjiarui153/AIGCIQA2023), and as PromptIQA's loader reads
    quality (github.com/chencn2020/PromptIQA). Programs call the prompts' table prompt.xlsx and prompts.xlsx too; where
    it is missing, images still go by prompts, of which the words are not known.
    """
    quality = _matrix(folder / "DATA" / "MOS" / "mosz1.mat")
    aligned = folder / "DATA" / "MOS" / "mosz3.mat"
    correspondence = _matrix(aligned) if aligned.is_file() else None
    prompts = _aigciqa_prompts(folder)
    for index, score in enumerate(quality):
        generator, within = divmod(index, 400)
        number = within // 4
        yield Row(
            f"image {index}",
            folder / "Image" / "allimg" / f"{index}.png",
            score,
            prompts[number] if prompts else "",
            f"generator {generator}",
            align=None if correspondence is None else correspondence[index],
            group=f"prompt {number}",
        )


def _aigciqa_prompts(folder: Path) -> list[str]:
    tables = [folder / name for name in ("AIGCIQA2023_Prompts.xlsx", "prompts.xlsx", "prompt.xlsx")]
    file = next((table for table in tables if table.is_file()), None)
    if file is None:
        return []
    # Some copies have got a header; the prompts are the last hundred rows.
    prompts = [str(cells[2]).strip() for _, cells in _xlsx(file, 3)]
    if len(prompts) not in (100, 101):
        raise DataError(f"{file}: {len(prompts)} prompts, expected 100")
    return prompts[-100:]


def _matrix(file: Path) -> list[float]:
    from scipy.io import loadmat

    try:
        scores = loadmat(file)["MOSz"].flatten()
    except KeyError as error:
        raise DataError(f"{file}: has no matrix MOSz") from error
    except Exception as error:  # SciPy's reader raises any exception for damaged files
        raise DataError(f"{file}: not a MATLAB file, or damaged: {error}") from error
    if len(scores) != 2400:
        raise DataError(f"{file}: MOSz holds {len(scores)} scores, expected 2400")
    return [float(score) for score in scores]


def _pku_i2iqa(folder: Path) -> Iterator[Row]:
    """I2IQA_annotation.xlsx (a copy as CSV is read too): the image that was given, the prompt, the image that came of
    it, and quality, authenticity and correspondence (MOS_q, MOS_a, MOS_c), the images as Generated_image/All/.

    As github.com/kguniverse/I2IQA_scripts reads the authors' archive (github.com/jiquan123/I2IQA).
    """
    for where, cells in _table(folder, "I2IQA_annotation", 6):
        given, prompt, name, quality, _, correspondence, *_ = cells
        yield Row(
            where,
            folder / "Generated_image" / "All" / str(name),
            quality,
            str(prompt or ""),
            "unknown",
            align=correspondence,
            group=f"{given} {prompt}",
        )


def _aigiqa_20k(folder: Path) -> Iterator[Row]:
    """info_train, info_val and info_test, as CSV or spreadsheets: name, prompt, mos; val and test count where they
    carry scores. The images lie in train/, val/ and test/, and the generator begins a name: DALLE2_0000.png.

    As IPCE, which won the NTIRE 2024 challenge on it, reads the archive (github.com/pf0607/IPCE); its scores run from 0
    to 5 and mean quality and correspondence in one.
    """
    for split in ("train", "val", "test"):
        if not any((folder / f"info_{split}{kind}").is_file() for kind in (".csv", ".xlsx")):
            continue
        for where, cells in _table(folder, f"info_{split}", 2):
            if len(cells) < 3:
                break  # the challenge kept the scores of this part
            name = str(cells[0])
            place = next(
                (folder / below / name for below in (split, "train", "all") if (folder / below / name).is_file()),
                folder / split / name,
            )
            yield Row(where, place, cells[2], str(cells[1] or ""), name.rpartition("_")[0])


PUBLISHED: Sequence[Published] = (
    Published("AGIQA-3K", "data.csv beside the images", ("data.csv",), _agiqa_3k, 0, 5),
    Published("AGIQA-1K", "AIGC_all.csv and file/", ("AIGC_all.csv",), _agiqa_1k, 0, 5),
    Published("AIGCIQA2023", "DATA/MOS/mosz1.mat and Image/allimg/", ("DATA/MOS/mosz1.mat",), _aigciqa_2023, 0, 100),
    Published(
        "PKU-I2IQA",
        "I2IQA_annotation.xlsx and Generated_image/All/",
        ("I2IQA_annotation.xlsx", "I2IQA_annotation.csv"),
        _pku_i2iqa,
        0,
        100,
    ),
    Published("AIGIQA-20K", "info_train.csv and train/", ("info_train.csv", "info_train.xlsx"), _aigiqa_20k, 0, 5),
)


@contextmanager
def open_csv(file: Path) -> Iterator[TextIO]:
    """The file as UTF-8 text. Raises DataError if it is not, possibly while it is read."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            yield opened
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a CSV file in UTF-8: {error}") from error


def _find(folder: Path, name: str) -> Path:
    """Archives unpack to the folder itself or to one below it, by taste."""
    places = [folder, *(folder / below for below in ("images", "all", "file"))]
    return next((place / name for place in places if (place / name).is_file()), folder / name)


def csv_records(
    file: Path, columns: Collection[str], advice: Callable[[Sequence[str]], str] = lambda _: ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each record stands, and its cells by column. Raises DataError where one of `columns` is missing, with the
    `advice` for those that were found, and for a record of another number of cells."""
    with open_csv(file) as opened:
        reader = csv.DictReader(opened)
        found = reader.fieldnames or []
        if missing := set(columns) - set(found):
            raise DataError(
                f"{file}, line 1: no column {' and '.join(sorted(missing))}; the columns are "
                f"{', '.join(found)}{advice(found)}"
            )
        for cells in reader:
            where = f"line {reader.line_num}"
            if None in cells or None in cells.values():
                raise DataError(
                    f"{file}, {where}: the number of cells differs from line 1; quote cells that contain commas"
                )
            yield where, cells


def _table(folder: Path, name: str, columns: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """The rows below the header of a spreadsheet, or of the CSV file that it was saved as."""
    file = folder / f"{name}.csv"
    if not file.is_file():
        rows = _xlsx(folder / f"{name}.xlsx", columns)
        next(rows, None)
        yield from ((f"{name}.xlsx, {where}", cells) for where, cells in rows)
        return
    with open_csv(file) as opened:
        reader = csv.reader(opened)
        for cells in reader:
            if len(cells) < columns:
                raise DataError(f"{file}, line {reader.line_num}: {len(cells)} cells, expected {columns} or more")
            if reader.line_num > 1:
                yield f"{file.name}, line {reader.line_num}", cells


def _xlsx(file: Path, columns: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """All rows that hold something."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(f"{file}: reading it needs openpyxl: pip install 'sluice[train]'") from error
    try:
        sheet = load_workbook(file, read_only=True, data_only=True).worksheets[0]
    except Exception as error:  # openpyxl raises any exception for damaged files
        raise DataError(f"{file}: not a spreadsheet (.xlsx), or damaged: {error}") from error
    for line, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if not any(cell is not None for cell in cells):
            continue
        if len(cells) < columns:
            raise DataError(f"{file}, row {line}: {len(cells)} cells, expected {columns} or more")
        yield f"row {line}", cells
