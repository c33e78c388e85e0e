"""evaluate, train and explain as a user runs them, in processes of their own, on degraded copies of the samples."""

import csv
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

pytest.importorskip("torch")
pytest.importorskip("scipy")

from schemas import Decision, ReviewItem, Scores, Source
from worker.scoring.model import load_model

MODULE = [sys.executable, "-c", "from worker.cli.main import app; app()"]
SAMPLES = sorted(Path("worker/samples/images").glob("*.jpg"))[:8]


def sluice(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [*MODULE, *map(str, arguments)], capture_output=True, text=True, timeout=250, check=False, env=environment
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 images: eight samples, each in four grades of blur, which stand in for what people would say."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, sample in enumerate(SAMPLES):
        with Image.open(sample) as image:
            for grade in range(4):
                name = f"{number}_{grade}.png"
                image.convert("RGB").resize((256, 256)).filter(ImageFilter.GaussianBlur(grade * 2)).save(folder / name)
                rows.append((name, 4.5 - grade, f"prompt {number}", sample.name.split("_")[0]))
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos", "prompt", "group"), *rows])
    return folder / "scores.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_evaluate_tells_how_well_the_shipped_model_sees_blur(data: Path, home: Path, tmp_path: Path) -> None:
    report, figures = tmp_path / "r" / "report.html", tmp_path / "figures.json"
    done = sluice("evaluate", "mst-lite", "--data", data, "--report", report, "--json", figures, home=home)

    assert done.returncode == 0, done.stderr
    assert "SRCC within generator" in done.stdout
    found = json.loads(figures.read_text())
    assert found["agreement"]["srcc"]["value"] > 0.5
    assert len(found["images"]) == 32
    assert report.read_text().count("<svg") == 3


def test_bad_data_ends_in_one_line_with_row_and_reason(data: Path, home: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(f"image,mos\n{data.parent / '0_0.png'},nan\n")
    done = sluice("evaluate", "mst-lite", "--data", bad, home=home)

    assert done.returncode == 2
    assert "bad.csv, line 2: mos is 'nan'" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_a_run_trains_heads_that_serving_loads_and_can_be_gone_on_with(data: Path, home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train", "--data", data, "--to", run, "--folds", "4", "--epochs", "4", "--rate", "1e-3")
    done = sluice(*arguments, home=home)
    assert done.returncode == 0, done.stderr
    assert "an epoch took" in done.stdout
    assert "the towers were trained on" in done.stdout
    assert {file.name for file in run.iterdir()} == {
        "checkpoints",
        "config.json",
        "metrics.json",
        "model",
        "report.html",
    }
    assert (run / "report.html").read_text().count("<svg") == 3
    manifest = load_model(str(run / "model")).manifest
    assert "heads only" in manifest.quality[0].protocol
    assert set(load_model("mst-lite").manifest.training_data) < set(manifest.training_data)

    again = sluice(*arguments, home=home)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    resumed = sluice(*arguments, "--resume", home=home)
    assert resumed.returncode == 0, resumed.stderr
    assert load_model(str(run / "model")).manifest == manifest
    other = sluice(*arguments, "--resume", "--seed", "2", home=home)
    assert other.returncode == 2
    assert "another configuration" in other.stderr


def test_decisions_give_new_heads_in_seconds_beside_the_live_ones(home: Path, tmp_path: Path) -> None:
    manifest = load_model("mst-lite").manifest
    draw = np.random.default_rng(1)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    items, decisions = [], []
    for number in range(80):
        approved = bool(number % 2)
        rows = {tower.name: draw.normal(size=tower.features) for tower in manifest.towers}
        rows["fine"][:16] += 0.6 if approved else -0.6
        name = f"item {number}"
        items.append(
            ReviewItem(
                item_id=name, verdict_id="v", event_id="e", tenant="t", queue="q", priority=1, created_at=now,
                image=None, content_hash=None, scores=Scores(quality=2), rule="r", model=manifest.digest,
                policy="sha256:" + "ab" * 32, source=Source(topic="x", partition=0, offset=number),
                features={tower: row.astype("<f2").tobytes() for tower, row in rows.items()},
            )
        )  # fmt: skip
        word = "approve" if approved else "reject"
        decisions.append(
            Decision(
                decision_id=f"d{number}", item_id=name, verdict_id="v", event_id="e", tenant="t", queue="q",
                reviewer="r", outcome=word, resolution=word, decided_at=now, fencing_token=1,
            )
        )  # fmt: skip
    for file, records in (("items.jsonl", items), ("decisions.jsonl", decisions)):
        (tmp_path / file).write_text("".join(record.model_dump_json(by_alias=True) + "\n" for record in records))
    done = sluice(
        "train", "--from-decisions", tmp_path / "decisions.jsonl", "--items", tmp_path / "items.jsonl", "--to",
        tmp_path / "run", home=home,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["refreshed_area"] > figures["live_area"]
    made = load_model(str(tmp_path / "run" / "model")).manifest
    assert made.digest == figures["refreshed"] != figures["live"] == manifest.digest
    assert made.graph == manifest.graph

    (tmp_path / "items.jsonl").write_text('{"schema": "sluice.verdict/1"}\n')
    bad = sluice(
        "train", "--from-decisions", tmp_path / "decisions.jsonl", "--items", tmp_path / "items.jsonl", "--to",
        tmp_path / "other", home=home,
    )  # fmt: skip
    assert bad.returncode == 2
    assert "items.jsonl, line 1" in bad.stderr.replace("\n", "")


def test_explain_draws_a_picture_without_torch(home: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; from worker.cli.main import app; app()"
    picture = tmp_path / "why.png"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "explain", str(SAMPLES[0]), "--output", str(picture), "--cells", "4"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 900
    refused = sluice("explain", SAMPLES[0], "--output", tmp_path / "why.svg", home=home)
    assert refused.returncode == 2
    assert "PNG" in refused.stderr
