from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")

from worker.model.data import DataError, Example, split_folds
from worker.model.evaluation.datasets import Scale, read_examples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def table(folder: Path, text: str) -> Path:
    file = folder / "mine.csv"
    file.write_text(text)
    return file


def test_a_plain_table_gives_scores_on_the_models_scale(folder: Path) -> None:
    file = table(folder, "image,mos,prompt,group\na.png,0,a cat,sd\nb.png,100,a cat,dalle\nc.png,50,,sd\n")
    first, second, third = read_examples(file, Scale(0, 100))

    assert [first.score, second.score, third.score] == [1, 5, 3]
    assert first.group == second.group == "a cat"
    assert third.group == str(folder / "c.png")
    assert [first.generator, second.generator] == ["sd", "dalle"]
    assert first.image == folder / "a.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine.csv, line 1: no column image and mos"),
        ("image,score\na.png,3\n", r"line 1: no column mos; the columns are image, score, expected image, mos"),
        ("image,mos\n", r"has no rows"),
        ("image,mos\na.png,3\nb.png,nan\n", r"line 3: mos is 'nan'; every image needs a finite score"),
        ("image,mos\na.png,good\n", r"line 2: mos is 'good', not a number"),
        ("image,mos\na.png,\n", r"line 2: mos is '', not a number"),
        ("image,mos\na.png,7\n", r"line 2: mos is 7, outside 1 to 5; set the scale with --scale"),
        ("image,mos\nz.png,3\n", r"line 2: no image .*z.png"),
        ("image,mos\n,3\n", r"line 2: image is empty"),
        ("image;mos\na.png;3\n", r"line 1: no column image and mos.*commas in place of semicolons"),
        ("image,mos\nb\\a.png,3\n", r"line 2: no image .*write its path with /"),
        ("image,mos\na.png,3\nb.png,4\na.png,5\n", r"line 4: .*a.png is already in line 2"),
        ("image,mos\na.png,inf\n", r"line 2: mos is 'inf'"),
        ("image,mos\na.png\n", r"line 2: the number of cells differs from line 1"),
        ("image,mos\na.png,3,4,5\n", r"line 2: the number of cells differs from line 1"),
        (
            "image,mos,prompt\na.png,3,cat\nb.png,3,cat\nc.png,3,dog\n",
            r"line 4: the prompt 'dog' has only one image.*--single-prompts",
        ),
    ],
)
def test_a_bad_row_is_named_with_what_to_do(text: str, message: str, folder: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(table(folder, text))


def test_one_image_prompts_can_be_allowed(folder: Path) -> None:
    file = table(folder, "image,mos,prompt\na.png,3,cat\nb.png,3,dog\n")
    assert len(read_examples(file, single_prompts=True)) == 2


def test_what_is_no_text_or_not_there_is_refused(folder: Path) -> None:
    (folder / "mine.csv").write_bytes(b"\xff\xfe\x00image,mos")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_examples(folder / "mine.csv")
    with pytest.raises(DataError, match="no such file or folder"):
        read_examples(folder / "nothing")
    with pytest.raises(DataError, match=r"no data set in a known layout \(AGIQA-3K: data.csv"):
        read_examples(folder)


def test_what_spreadsheets_put_before_a_table_does_no_harm(folder: Path) -> None:
    (folder / "mine.csv").write_bytes(b"\xef\xbb\xbfimage,mos\r\na.png,3\r\n")
    assert [example.score for example in read_examples(folder / "mine.csv")] == [3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "data.csv",
            b"name,prompt,mos_quality,mos_align\na.png\n",
            r"data.csv, line 2: the number of cells differs from line 1",
        ),
        ("data.csv", b"name;prompt\n", r"data.csv, line 1: no column mos_align"),
        ("AIGC_all.csv", b"\xff\xfe\x00", r"AIGC_all.csv: not a CSV file in UTF-8"),
        ("info_train.xlsx", b"PK\x03\x04 broken", r"info_train.xlsx: not a spreadsheet"),
        ("I2IQA_annotation.csv", b"a,b\n", r"I2IQA_annotation.csv, line 1: 2 cells, expected 6"),
        ("DATA/MOS/mosz1.mat", b"broken", r"mosz1.mat: not a MATLAB file, or damaged"),
    ],
)
def test_a_damaged_table_of_a_published_data_set_is_named(
    name: str, content: bytes, message: str, folder: Path
) -> None:
    pytest.importorskip("openpyxl")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_examples(folder)


def test_a_prompt_of_two_data_sets_stays_on_one_side_of_a_split(folder: Path) -> None:
    examples = [
        Example(folder / "a.png", 3, data_set, f"prompt {number}", "g")
        for data_set, numbers in (("one", range(20)), ("two", range(10, 30)))
        for number in numbers
    ]
    folds = split_folds(examples, 5, seed=1)
    sides = {(example.group, fold) for example, fold in zip(examples, folds, strict=True)}
    assert len(sides) == 30


def test_agiqa_3k_is_read_as_published(folder: Path) -> None:
    (folder / "sd1.5_normal_001.jpg").write_bytes((folder / "a.png").read_bytes())
    (folder / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        "sd1.5_normal_001.jpg,a tray of sushi,,,,2.5,0.1,3,0.2\n"
    )
    (example,) = read_examples(folder)

    assert (example.generator, example.group, example.score, example.dataset) == (
        "sd1.5", "a tray of sushi", 3.0, "AGIQA-3K",
    )  # fmt: skip
    assert (example.prompt, example.alignment) == ("a tray of sushi", 3.4)


def test_agiqa_1k_takes_prompts_from_names(folder: Path) -> None:
    (folder / "file").mkdir()
    for name in ("deepai_9_6_0_1.jpg", "dreamStudio_9_6_0_1.jpg"):
        (folder / "file" / name).write_bytes((folder / "a.png").read_bytes())
    (folder / "AIGC_all.csv").write_text("Image,Score\ndeepai_9_6_0_1.jpg,5\ndreamStudio_9_6_0_1.jpg,0\n")
    first, second = read_examples(folder)

    assert first.group == second.group == "9_6_0_1"
    assert (first.generator, second.generator) == ("deepai", "dreamStudio")
    assert (first.score, second.score) == (5, 1)
    assert first.prompt == ""
    assert first.alignment is None


def spreadsheet(file: Path, rows: Sequence[Sequence[object]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)


def aigciqa2023(folder: Path) -> None:
    from scipy.io import savemat

    (folder / "DATA" / "MOS").mkdir(parents=True)
    numbers = np.arange(2400.0)[:, None]
    savemat(folder / "DATA" / "MOS" / "mosz1.mat", {"MOSz": np.full((2400, 1), 50.0)})
    savemat(folder / "DATA" / "MOS" / "mosz3.mat", {"MOSz": numbers / 24})
    (folder / "Image" / "allimg").mkdir(parents=True)
    for index in range(2400):
        (folder / "Image" / "allimg" / f"{index}.png").touch()


def test_aigciqa2023_takes_generator_and_prompt_from_the_number(folder: Path) -> None:
    aigciqa2023(folder)
    examples = read_examples(folder)

    assert len(examples) == 2400
    assert len({example.generator for example in examples}) == 6
    assert examples[0].group == examples[3].group == examples[400].group != examples[4].group
    assert examples[0].prompt == ""
    assert [examples[index].alignment for index in (0, 1200)] == [1, 3]


@pytest.mark.parametrize("header", [[], [("scene", "challenge", "prompt", "object")]])
def test_aigciqa2023_has_its_prompts_third_in_their_table(header: list[Sequence[object]], folder: Path) -> None:
    aigciqa2023(folder)
    rows = [("Basic", "none", f"prompt of scene {number}", "x") for number in range(100)]
    spreadsheet(folder / "AIGCIQA2023_Prompts.xlsx", [*header, *rows])
    examples = read_examples(folder)

    assert [examples[index].prompt for index in (0, 3, 4, 404, 2399)] == [
        f"prompt of scene {number}" for number in (0, 0, 1, 1, 99)
    ]


def test_pku_i2iqa_is_read_with_quality_and_correspondence(folder: Path) -> None:
    columns = ("Image_prompt", "Text_prompt", "Generated_image", "MOS_q", "MOS_a", "MOS_c")
    rows = [("1.jpg", "a red bridge", "a.png", 50, 10, 100), ("1.jpg", "a red bridge", "b.png", 0, 90, 25)]
    spreadsheet(folder / "I2IQA_annotation.xlsx", [columns, *rows])
    (folder / "Generated_image" / "All").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "Generated_image" / "All" / name)
    first, second = read_examples(folder)

    assert (first.score, first.alignment, first.prompt) == (3, 5, "a red bridge")
    assert (second.score, second.alignment) == (1, 2)
    assert first.group == second.group == "1.jpg a red bridge"


def test_aigiqa_20k_is_read_from_csv_and_a_part_without_scores_is_left_out(folder: Path) -> None:
    for split, name in (("train", "DALLE2_0000.png"), ("val", "SDXL_Turbo_0001.png")):
        (folder / split).mkdir()
        (folder / split / name).write_bytes((folder / "a.png").read_bytes())
    (folder / "info_train.csv").write_text('name,prompt,mos\nDALLE2_0000.png,"a corgi, running",2.5\n')
    (folder / "info_val.csv").write_text("name,prompt,mos\nSDXL_Turbo_0001.png,a boat,5\n")
    (folder / "info_test.csv").write_text("name,prompt\nPlayground_0002.png,a castle\n")
    first, second = read_examples(folder)

    assert (first.generator, first.prompt, first.score, first.alignment) == ("DALLE2", "a corgi, running", 3, None)
    assert (second.generator, second.score) == ("SDXL_Turbo", 5)


def test_a_plain_table_tells_how_well_images_fit_their_prompts(folder: Path) -> None:
    file = table(folder, "image,mos,prompt,align\na.png,3,a cat,5\nb.png,2,a cat,\n")
    first, second = read_examples(file)

    assert (first.prompt, first.alignment) == ("a cat", 5)
    assert second.alignment is None
    with pytest.raises(DataError, match=r"line 2: align is '6', outside|line 2: align is 6, outside 1 to 5"):
        read_examples(table(folder, "image,mos,prompt,align\na.png,3,a cat,6\nb.png,2,a cat,2\n"))
    with pytest.raises(DataError, match="line 2: align is set, but prompt is empty"):
        read_examples(table(folder, "image,mos,align\na.png,3,4\n"))


@pytest.mark.parametrize("rows", [[("a.png", "a cat", 2.5), ("b.png", "a dog", None)]])
def test_spreadsheets_name_their_rows_too(rows: list[tuple[object, ...]], folder: Path) -> None:
    spreadsheet(folder / "info_train.xlsx", [("name", "prompt", "mos"), *rows])
    (folder / "train").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "train" / name).write_bytes((folder / name).read_bytes())

    with pytest.raises(DataError, match=r"info_train.xlsx, row 3: mos is None, not a number"):
        read_examples(folder)
