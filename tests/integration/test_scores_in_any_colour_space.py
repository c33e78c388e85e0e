"""The scores of the sample images do not depend on the colour space that they come in."""

from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.images import made_images as made
from worker.images import colour
from worker.images.decode import decode
from worker.images.views import make_views
from worker.samples.sample import load_samples
from worker.scoring.engine import Engine
from worker.scoring.model import Model, load_model
from worker.scoring.opening import open_engine
from worker.settings import Settings

Pixels = NDArray[np.uint8]

LARGEST_MEAN_SHIFT = 0.05
MAX_PIXELS = 10_000_000
BATCH = 10


def in_primaries(pixels: Pixels, number: int, curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Pixels:
    """sRGB pixels written with other primaries (H.273) and another transfer curve."""
    matrix = np.linalg.inv(colour._to_srgb_primaries(colour._PRIMARIES[number]))
    light = np.clip(colour._light(pixels / 255.0) @ matrix.T, 0, 1)
    return np.rint(255 * curve(light)).astype(np.uint8)


def pq(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084 of an image whose tones come out as they are after the tone curve."""
    power = (light / colour._TONE_AFTER[0] * 203 / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def png(pixels: Pixels, *chunks: bytes) -> bytes:
    return made.png(pixels.astype(np.uint16), 8, made.RGB, *chunks)


WAYS: dict[str, Callable[[Pixels], bytes]] = {
    "display p3 by a profile": lambda pixels: png(
        in_primaries(pixels, 12, lambda light: light ** (1 / 2.2)),
        made.chunk(b"iCCP", made.iccp(made.icc(made.P3, 2.2))),
    ),
    "display p3 by code points": lambda pixels: png(in_primaries(pixels, 12, colour._encoded), made.codes(12, 13)),
    "bt.2020 with pq": lambda pixels: png(in_primaries(pixels, 9, pq), made.codes(9, 16)),
}


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    return [decode(sample.path.read_bytes(), max_pixels=MAX_PIXELS) for sample in load_samples()]


def qualities(model: Model, engine: Engine, images: list[Pixels]) -> NDArray[np.float64]:
    found: list[float] = []
    for start in range(0, len(images), BATCH):
        views = [make_views(pixels, model.manifest.views) for pixels in images[start : start + BATCH]]
        batch = {name: np.stack([view[name] for view in views]) for name in model.manifest.views}
        found += [scores.quality for scores in model.heads.score(engine.infer(batch))]
    return np.array(found)


def test_wide_gamuts_and_hdr_are_scored_as_srgb_is(images: list[Pixels]) -> None:
    settings = Settings()
    model = load_model(settings.model, settings.s3)
    with closing(open_engine(settings, model)) as engine:
        expected = qualities(model, engine, images)
        for name, write in WAYS.items():
            shown = [decode(write(pixels), max_pixels=MAX_PIXELS) for pixels in images]
            shift = np.abs(qualities(model, engine, shown) - expected)
            assert shift.mean() < LARGEST_MEAN_SHIFT, name
