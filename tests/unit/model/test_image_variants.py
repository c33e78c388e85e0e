"""Variants change what does not matter, and only that."""

import csv

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="training needs the extra `train`")

from worker.model.data import SAMPLES
from worker.model.maps import vary


def sample() -> np.ndarray:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        name = next(csv.DictReader(file))["image"]
    return np.asarray(Image.open(SAMPLES / "images" / name).convert("RGB"))


def test_a_variant_repeats_with_its_seed_and_differs_with_another() -> None:
    pixels = sample()
    one, again, other = (vary(pixels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()


@pytest.mark.parametrize("seed", range(12))
def test_a_variant_stays_close_in_size_and_tone(seed: int) -> None:
    pixels = sample()
    changed = vary(pixels, np.random.default_rng(seed))
    assert changed.dtype == np.uint8
    for before, after in zip(pixels.shape[:2], changed.shape[:2], strict=True):
        assert 0.8 * before <= after <= 1.09 * before
    assert abs(float(changed.mean()) - float(pixels.mean())) < 25
