"""The heads against the formula, written out one image at a time."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.scoring.heads import Heads
from worker.scoring.manifest import GraphSpec, HeadsSpec, ModelManifest, TowerSpec
from worker.view import ViewSpec

Tensors = dict[str, NDArray[np.float32]]


def make_manifest(coarse: int, fine: int) -> ModelManifest:
    view = ViewSpec(size=16, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))
    return ModelManifest(
        schema="sluice.model/1",
        name="toy",
        version="1",
        views={"whole": view, "detail": view},
        towers=(
            TowerSpec(name="coarse", view="whole", features=coarse),
            TowerSpec(name="fine", view="detail", features=fine),
        ),
        graph=GraphSpec(path="towers.onnx", sha256="0" * 64, opset=18),
        heads=HeadsSpec(path="heads.safetensors", sha256="0" * 64, type="gated_template", coarse="coarse", fine="fine"),
        anchors=("bad", "poor", "fair", "good", "perfect"),
        score_range=(1, 5),
        license="Apache-2.0",
        training_data=(),
    )


def make_tensors(coarse: int, fine: int, hidden: int, fused: int, seed: int = 0) -> Tensors:
    random = np.random.default_rng(seed)
    shapes = {
        "gff.W_h": (hidden, coarse + fine),
        "gff.W_g": (fused, hidden),
        "gff.W_c": (fused, coarse),
        "gff.W_f": (fused, fine),
    }
    tensors = {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": random.normal(size=shape[0]).astype(np.float32) for name, shape in shapes.items()}
    tensors["head.anchors"] = random.normal(size=(5, fused)).astype(np.float32)
    tensors["head.temperature"] = np.array([7], np.float32)
    return tensors


def by_the_formula(t: Mapping[str, NDArray[np.float32]], c: list[float], f: list[float]) -> SimpleNamespace:
    def linear(name: str, x: list[float]) -> list[float]:
        rows = zip(t[f"{name}.weight"], t[f"{name}.bias"], strict=True)
        return [math.fsum(float(w) * v for w, v in zip(row, x, strict=True)) + float(b) for row, b in rows]

    def cosine(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    hidden = [max(0.0, v) for v in linear("gff.W_h", c + f)]
    gate = [1 / (1 + math.exp(-v)) for v in linear("gff.W_g", hidden)]
    streams = zip(gate, linear("gff.W_c", c), linear("gff.W_f", f), strict=True)
    fused = [g * a + (1 - g) * b for g, a, b in streams]
    logits = [float(t["head.temperature"][0]) * cosine(fused, list(map(float, row))) for row in t["head.anchors"]]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    anchors = [weight / sum(weights) for weight in weights]
    return SimpleNamespace(
        quality=sum(p * value for p, value in zip(anchors, (1, 2, 3, 4, 5), strict=True)),
        anchors=anchors,
        share=sum(gate) / len(gate),
    )


@given(seed=st.integers(0, 2**32 - 1), coarse=st.integers(1, 9), fine=st.integers(1, 9), batch=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_scores_follow_the_formula_in_any_dimension(seed: int, coarse: int, fine: int, batch: int) -> None:
    tensors = make_tensors(coarse, fine, hidden=6, fused=7, seed=seed)
    random = np.random.default_rng(seed)
    features = {
        "coarse": random.normal(size=(batch, coarse)).astype(np.float32),
        "fine": random.normal(size=(batch, fine)).astype(np.float32),
    }
    for row, scores in enumerate(Heads(make_manifest(coarse, fine), tensors).score(features)):
        expected = by_the_formula(tensors, features["coarse"][row].tolist(), features["fine"][row].tolist())
        assert scores.quality == pytest.approx(expected.quality, abs=2e-4)
        assert scores.anchors == pytest.approx(expected.anchors, abs=2e-4)
        assert scores.coarse_share == pytest.approx(expected.share, abs=2e-4)


def test_huge_features_give_scores_within_the_scale() -> None:
    heads = Heads(make_manifest(4, 4), make_tensors(4, 4, 6, 7))
    [scores] = heads.score({"coarse": np.full((1, 4), 1e15, np.float32), "fine": np.full((1, 4), -1e15, np.float32)})
    assert 1 <= scores.quality <= 5
    assert math.isclose(sum(scores.anchors or ()), 1, abs_tol=1e-5)


def test_half_precision_features_from_a_store_score_like_the_originals() -> None:
    heads = Heads(make_manifest(8, 8), make_tensors(8, 8, 6, 7))
    features = {name: np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32) for name in ("coarse", "fine")}
    stored = {name: rows.astype(np.float16) for name, rows in features.items()}
    for now, then in zip(heads.score(features), heads.score(cast(dict[str, NDArray[np.float32]], stored)), strict=True):
        assert now.quality == pytest.approx(then.quality, abs=0.01)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"coarse": np.zeros((1, 4), np.float32)}, "no features of tower 'fine'"),
        ({"coarse": np.zeros((1, 4), np.float32), "fine": np.zeros((1, 3), np.float32)}, r"shape \[1, 3\]"),
        ({"coarse": np.zeros((1, 4), np.float32), "fine": np.zeros(4, np.float32)}, r"shape \[4\]"),
        ({"coarse": np.zeros((1, 4), np.float32), "fine": np.zeros((2, 4), np.float32)}, "1 rows of coarse but 2"),
        ({"coarse": np.full((1, 4), np.nan, np.float32), "fine": np.zeros((1, 4), np.float32)}, "not finite"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Tensors, message: str) -> None:
    heads = Heads(make_manifest(4, 4), make_tensors(4, 4, 6, 7))
    with pytest.raises(ValueError, match=message):
        heads.score(features)
