"""What `sluice train`, `evaluate` and `model` leave behind and refuse, on a small model of our own."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("torch")
pytest.importorskip("scipy")

from tests.unit.trt_build.towers import write_model
from worker.cli.main import app
from worker.scoring.model import load_model
from worker.scoring.repository import Repository
from worker.scoring.stores import FolderStore


def sluice(*arguments: object, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", **environment}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = []
    for number in range(12):
        Image.new("RGB", (40, 40), (20 * number, 90, 10)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", 1 + number % 5, f"prompt {number // 3}"))
    return write_table(tmp_path / "scores.csv", rows)


def write_table(file: Path, rows: Sequence[tuple[str, float, str]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("image", "mos", "prompt"), *rows])
    return file


def read_table(file: Path) -> list[tuple[str, float, str]]:
    with file.open(newline="") as opened:
        return [(row["image"], float(row["mos"]), row["prompt"]) for row in csv.DictReader(opened)]


def train(table: Path, model: Path, *more: object) -> Result:
    to = table.parent / "run"
    quick = ("--folds", 3, "--epochs", 2, "--cache", table.parent / "cache")
    return sluice("train", "--data", table, "--model", model, "--to", to, *quick, *more)


def test_what_cannot_be_learned_from_leaves_the_runs_folder_free(table: Path, model: Path) -> None:
    rows = read_table(table)
    write_table(table, [*rows[:-1], ("11.png", float("nan"), "prompt 3")])
    assert "line 13: mos is 'nan'" in train(table, model).stderr.replace("\n", "")
    write_table(table, rows[:6])
    assert "3 folds of 2 prompts" in train(table, model).stderr.replace("\n", "")
    assert not (table.parent / "run").exists()

    write_table(table, rows)
    done = train(table, model)
    assert done.exit_code == 0, done.output


def test_a_run_goes_on_with_the_data_that_it_began_with_only(table: Path, model: Path) -> None:
    assert train(table, model).exit_code == 0
    assert train(table, model, "--resume").exit_code == 0
    rows = read_table(table)
    write_table(table, [(image, 6 - mos, prompt) for image, mos, prompt in rows])
    other = train(table, model, "--resume")

    assert other.exit_code == 2
    assert "another configuration" in other.stderr.replace("\n", " ")


def test_the_runs_page_and_figures_name_the_model_that_came_of_it(table: Path, model: Path) -> None:
    assert train(table, model).exit_code == 0
    run = table.parent / "run"
    digest = load_model(str(run / "model")).manifest.digest

    assert json.loads((run / "metrics.json").read_text())["digest"] == digest
    assert digest in (run / "report.html").read_text()


def test_copies_of_an_image_are_told_and_stay_on_one_side(table: Path, model: Path) -> None:
    rows = read_table(table)
    (table.parent / "11.png").write_bytes((table.parent / "0.png").read_bytes())
    done = train(table, model)

    assert done.exit_code == 0, done.output
    assert "4 prompts or images without a prompt form 3 groups" in done.output
    assert "(1 image is a copy of another)" in done.output
    write_table(table, [rows[0], rows[-1]])
    again = sluice("train", "--data", table, "--single-prompts", "--to", table.parent / "other", "--folds", 2)
    assert again.exit_code == 2
    assert "2 folds of 1 prompts" in again.stderr.replace("\n", " ")


def test_the_engine_of_the_settings_is_what_is_measured(table: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    engine = {"SLUICE_ENGINE__BACKEND": "torch", "SLUICE_ENGINE__PRECISION": "fp32"}
    done = sluice("evaluate", model, "--data", table, "--json", file, "--cache", tmp_path / "none", **engine)

    assert done.exit_code == 0, done.output
    assert "engine: torch, fp32" in done.output
    assert json.loads(file.read_text())["engine"] == {"backend": "torch", "precision": "fp32"}
    assert not (tmp_path / "none").exists()


def test_a_repositorys_models_are_listed(model: Path, tmp_path: Path) -> None:
    Repository(FolderStore(tmp_path / "repository")).publish(model / "manifest.json")
    listed = sluice("model", "list", "--repository", tmp_path / "repository")

    manifest = load_model(str(model)).manifest
    assert listed.exit_code == 0, listed.output
    assert manifest.name in listed.output
    assert manifest.digest[:19] in listed.output
    empty = sluice("model", "list", "--repository", tmp_path / "nothing")
    assert empty.exit_code == 2
    assert "no models here" in empty.stderr
