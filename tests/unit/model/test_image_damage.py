"""Damage harms an image, worse damage more, and the same draw gives the same."""

import csv

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

from worker.model.damage import KINDS, damage
from worker.model.data import SAMPLES


def sample() -> Image.Image:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        name = next(csv.DictReader(file))["image"]
    return Image.open(SAMPLES / "images" / name).convert("RGB")


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_damage_is_further_from_the_image(kind: str) -> None:
    image = sample()
    mild, middle, heavy = (KINDS[kind](image, strength, np.random.default_rng(1)) for strength in (0, 0.5, 1))
    assert mild.size == heavy.size == image.size
    assert 0.5 < distance(image, mild) < distance(image, middle) < distance(image, heavy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (9, 300), (33, 20)])
def test_small_and_narrow_images_can_be_damaged(kind: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 30, 90))
    assert KINDS[kind](image, 1, np.random.default_rng(1)).size == size


def test_damage_repeats_with_its_seed_and_differs_with_another() -> None:
    pixels = np.asarray(sample())
    one, again, other = (damage(pixels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for ours, theirs in zip(one, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (one[0] != other[0]).any()
    assert (one[0] != one[1]).any()
    assert one[0].shape == one[1].shape == pixels.shape
