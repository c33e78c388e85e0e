"""The CPU engine on the shipped model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worker.samples.sample import SAMPLE_IMAGES
from worker.scoring.engine import EngineError
from worker.scoring.manifest import ManifestError
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine

Views = dict[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mst-lite")


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[OpenVinoEngine]:
    engine = OpenVinoEngine(model, threads=1)
    yield engine
    engine.close()


def make_batch(model: Model, size: int, seed: int = 0) -> Views:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (size, *view.shape), dtype=np.uint8)
        for name, view in model.manifest.views.items()
    }


def test_features_have_the_manifests_shapes(engine: OpenVinoEngine, model: Model) -> None:
    features = engine.infer(make_batch(model, 3))
    assert {name: (rows.shape, rows.dtype) for name, rows in features.items()} == {
        tower.name: ((3, tower.features), np.dtype(np.float32)) for tower in model.manifest.towers
    }


def test_an_image_scores_the_same_alone_and_in_a_batch(engine: OpenVinoEngine, model: Model) -> None:
    batch = make_batch(model, 5)
    together = model.heads.score(engine.infer(batch))
    alone = [
        model.heads.score(engine.infer({name: pixels[row : row + 1] for name, pixels in batch.items()}))[0]
        for row in range(5)
    ]
    assert [scores.quality for scores in together] == pytest.approx([scores.quality for scores in alone], abs=1e-5)


def test_many_threads_get_each_their_own_features(model: Model) -> None:
    engine = OpenVinoEngine(model, threads=2)
    batches = [make_batch(model, 1 + seed % 3, seed) for seed in range(8)]
    expected = [engine.infer(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine.infer, batches))
    engine.close()
    for one, other in zip(expected, together, strict=True):
        for name, rows in one.items():
            np.testing.assert_array_equal(rows, other[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("detail"), r"got the views \['whole'\], the model needs \['detail', 'whole'\]"),
        (lambda b: b.update(other=b["whole"]), r"got the views \['detail', 'other', 'whole'\]"),
        (lambda b: b.update(whole=b["whole"].astype(np.float32)), "view 'whole' is float32"),
        (lambda b: b.update(whole=b["whole"][:, 1:].copy()), r"view 'whole' is uint8\[2, \d+, \d+, 3\]"),
        (lambda b: b.update(detail=b["detail"][:, 0].copy()), "view 'detail' is uint8"),
        (lambda b: b.update(whole=b["whole"][:, ::-1]), "view 'whole' is not contiguous"),
        (lambda b: b.update(whole=b["whole"][:1]), r"views of \[1, 2\] images"),
        (lambda b: b.update({name: pixels[:0] for name, pixels in b.items()}), r"views of \[0\] images"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    engine: OpenVinoEngine, model: Model, change: object, message: str
) -> None:
    batch = make_batch(model, 2)
    change(batch)  # type: ignore[operator]
    with pytest.raises(EngineError, match=message):
        engine.infer(batch)


def test_a_batch_over_the_limit_is_refused(engine: OpenVinoEngine, model: Model) -> None:
    batch = {
        name: np.broadcast_to(np.zeros(view.shape, np.uint8), (engine.max_batch + 1, *view.shape)).copy()
        for name, view in model.manifest.views.items()
    }
    with pytest.raises(EngineError, match=f"1 to {engine.max_batch}"):
        engine.infer(batch)


def test_a_graph_with_other_towers_than_the_manifest_is_refused(model: Model) -> None:
    fewer = tuple(tower.model_copy(update={"features": tower.features + 1}) for tower in model.manifest.towers)
    with pytest.raises(
        ManifestError, match=r"coarse is f32.*the manifest means f32.*export graph and manifest together"
    ):
        OpenVinoEngine(replace(model, manifest=model.manifest.model_copy(update={"towers": fewer})), threads=1)


def test_a_graph_with_another_view_size_than_the_manifest_is_refused(model: Model) -> None:
    views = {name: view.model_copy(update={"size": 160}) for name, view in model.manifest.views.items()}
    with pytest.raises(ManifestError, match="whole is u8"):
        OpenVinoEngine(replace(model, manifest=model.manifest.model_copy(update={"views": views})), threads=1)


def test_a_graph_with_other_inputs_than_the_manifest_is_refused(model: Model) -> None:
    views = {f"{name}s": view for name, view in model.manifest.views.items()}
    with pytest.raises(ManifestError, match=r"has the inputs \['detail', 'whole'\], the manifest names"):
        OpenVinoEngine(replace(model, manifest=model.manifest.model_copy(update={"views": views})), threads=1)


def test_bytes_that_openvino_cannot_read_are_refused(model: Model) -> None:
    with pytest.raises(ManifestError, match="OpenVINO cannot read the graph"):
        OpenVinoEngine(replace(model, graph=b"not a graph"), threads=1)


def test_lost_detail_costs_a_liked_image_quality(engine: OpenVinoEngine, model: Model) -> None:
    for name in ("xl2.2_normal_236.jpg", "midjourney_normal_065.jpg", "sd1.5_normal_139.jpg", "xl2.2_normal_065.jpg"):
        whole = Image.open(SAMPLE_IMAGES / name).convert("RGB")
        lost = whole.resize((64, 64), Image.Resampling.BICUBIC).resize(whole.size, Image.Resampling.BICUBIC)
        before, after = (quality(engine, model, image) for image in (whole, lost))
        assert before > after + 0.4, name


def quality(engine: OpenVinoEngine, model: Model, image: Image.Image) -> float:
    """The score of a square image at least two windows of the fine stream wide."""
    whole, detail = model.manifest.views["whole"], model.manifest.views["detail"]
    side = round(detail.crops**0.5)
    corners = [round(index * (image.width - detail.size) / (side - 1)) for index in range(side)]
    crops = [
        np.asarray(image.crop((left, top, left + detail.size, top + detail.size)))
        for top in corners
        for left in corners
    ]
    views = {
        "whole": np.asarray(image.resize((whole.size, whole.size), Image.Resampling.BICUBIC))[None].copy(),
        "detail": np.stack(crops)[None],
    }
    return model.heads.score(engine.infer(views))[0].quality
