from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")

from worker.model.data import DataError, Example
from worker.model.evaluation.features import compute_features, run_engine, towers_digest
from worker.scoring.engine import Features, Prompts, Views
from worker.scoring.manifest import ModelManifest
from worker.scoring.model import load_model


class Engine:
    """Features that tell the view's mean; counts the images it was asked for."""

    max_batch = 4

    def __init__(self, manifest: ModelManifest) -> None:
        self.manifest = manifest
        self.images = 0
        self.prompts: list[str | None] = []

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        batch = len(next(iter(views.values())))
        self.images += batch
        self.prompts += prompts or ()
        return {
            tower.name: np.repeat(
                views[tower.view].reshape(batch, -1).mean(axis=1, dtype=np.float32)[:, None], tower.features, axis=1
            )
            for tower in self.manifest.towers
        }

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def manifest() -> ModelManifest:
    return load_model("mst-lite").manifest


def pictures(folder: Path, number: int) -> list[Example]:
    for index in range(number):
        Image.fromarray(np.full((240, 240, 3), 20 * index, np.uint8)).save(folder / f"{index}.png")
    return [Example(folder / f"{index}.png", 3.0, "mine", str(index), "g") for index in range(number)]


def test_features_come_in_the_order_of_the_examples_and_are_computed_once(
    manifest: ModelManifest, tmp_path: Path
) -> None:
    examples = pictures(tmp_path, 10)
    engine = Engine(manifest)
    first = compute_features(manifest, engine, examples, tmp_path / "cache")
    again = compute_features(manifest, engine, examples[::-1], tmp_path / "cache")

    assert engine.images == 10
    for tower in manifest.towers:
        assert first[tower.name].shape == (10, tower.features)
        np.testing.assert_allclose(first[tower.name][:, 0], [20 * index for index in range(10)], atol=0.1)
        np.testing.assert_array_equal(again[tower.name], first[tower.name][::-1])


def test_the_same_bytes_under_another_name_are_the_same_image(manifest: ModelManifest, tmp_path: Path) -> None:
    (example,) = pictures(tmp_path, 1)
    copy = tmp_path / "copy.png"
    copy.write_bytes(example.image.read_bytes())
    engine = Engine(manifest)
    compute_features(manifest, engine, [example, Example(copy, 1.0, "mine", "x", "g")], tmp_path / "cache")

    assert engine.images == 1


def test_other_towers_share_no_features_and_other_heads_do(manifest: ModelManifest) -> None:
    graph = manifest.graph.model_copy(update={"sha256": "0" * 64})
    heads = manifest.heads.model_copy(update={"sha256": "0" * 64})

    assert towers_digest(manifest.model_copy(update={"graph": graph})) != towers_digest(manifest)
    assert towers_digest(manifest.model_copy(update={"heads": heads})) == towers_digest(manifest)


def test_an_image_that_cannot_be_read_is_named(manifest: ModelManifest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no image")

    with pytest.raises(DataError, match=r"broken\.jpg: "):
        compute_features(manifest, Engine(manifest), [Example(broken, 3, "d", "p", "g")], tmp_path / "cache")


def test_a_damaged_row_of_the_cache_is_computed_again(manifest: ModelManifest, tmp_path: Path) -> None:
    import sqlite3

    examples = pictures(tmp_path, 3)
    engine = Engine(manifest)
    first = compute_features(manifest, engine, examples, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    with sqlite3.connect(file) as opened:
        opened.execute("UPDATE features SET value = x'00'")
    again = compute_features(manifest, engine, examples, tmp_path / "cache")

    assert engine.images == 6
    np.testing.assert_array_equal(first["coarse"], again["coarse"])


def test_an_engine_that_is_measured_sees_every_image_beside_its_prompt(manifest: ModelManifest, tmp_path: Path) -> None:
    examples = [replace(example, prompt="a cat" * (n % 2)) for n, example in enumerate(pictures(tmp_path, 10))]
    engine = Engine(manifest)
    kept = compute_features(manifest, engine, examples, tmp_path / "cache")
    anew = run_engine(manifest, engine, examples)

    assert engine.images == 20
    assert engine.prompts == [None, "a cat"] * 5
    np.testing.assert_array_equal(anew["fine"], kept["fine"])


def test_a_place_that_keeps_no_features_is_named(manifest: ModelManifest, tmp_path: Path) -> None:
    examples = pictures(tmp_path, 1)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file: features cannot be stored: .*--cache"):
        compute_features(manifest, Engine(manifest), examples, tmp_path / "file")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{towers_digest(manifest)[:32]}.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match=r"sqlite: features cannot be stored: .*remove the file"):
        compute_features(manifest, Engine(manifest), examples, tmp_path / "cache")
