"""The golden set: the images, and degraded copies of them, that engines are compared on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trt_build.errors import BuildError
from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.images.views import make_views
from worker.samples.degrade import DEGRADATIONS
from worker.samples.sample import load_samples
from worker.view import ViewSpec

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"}
MAX_PIXELS = 64_000_000

PROMPTS = (
    "a cat",
    "portrait of an old fisherman, oil on canvas",
    "a lighthouse on a cliff in a thunderstorm at night, waves breaking on the rocks, dramatic light, highly detailed, "
    "cinematic, wide angle, trending on artstation, 8k, sharp focus, by a famous illustrator of adventure novels, "
    "muted colours, a small boat in the distance, gulls above, a path of steps that leads up to a lit door",
    "une rue de Paris sous la pluie",
    "山の上の城",
    'a sign that says "SALE 50%"!!!',
)
"""For images of a folder, which has none: short and beyond the context, in several languages."""


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """An image and what the model sees of it. `name` says how it was spoiled: `a.jpg`, `a.jpg, blur`. `prompt`: what a
    model that judges prompts is to judge it beside."""

    name: str
    path: Path
    views: Mapping[str, NDArray[np.uint8]]
    prompt: str | None = None


def golden_images(specs: Mapping[str, ViewSpec], folder: Path | None = None) -> Iterator[GoldenImage]:
    """Every image of the folder, or every sample that ships, each followed by its degraded copies.

    Raises BuildError for a folder without images and for an image that cannot be read.
    """
    prompts = {sample.path: sample.prompt for sample in load_samples()} if folder is None else {}
    for index, path in enumerate(_paths(folder)):
        data = path.read_bytes()
        prompt = prompts.get(path, PROMPTS[index % len(PROMPTS)])
        yield _golden(path.name, path, data, specs, prompt)
        with Image.open(BytesIO(data)) as image:
            whole = image.convert("RGB")
        for name, degrade in DEGRADATIONS.items():
            yield _golden(f"{path.name}, {name}", path, degrade(whole), specs, prompt)


def calibration_images(
    specs: Mapping[str, ViewSpec], folder: Path | None = None
) -> Iterator[Mapping[str, NDArray[np.uint8]]]:
    """The views of every image of the folder, or of every sample that ships, as they are. Raises BuildError."""
    for path in _paths(folder):
        yield _golden(path.name, path, path.read_bytes(), specs).views


def count_golden(folder: Path | None = None) -> int:
    """The number of images that `golden_images` yields."""
    return len(_paths(folder)) * (1 + len(DEGRADATIONS))


def _paths(folder: Path | None) -> Sequence[Path]:
    if folder is None:
        return [sample.path for sample in load_samples()]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise BuildError(f"{folder}: no images here; the golden set is a folder of {', '.join(sorted(SUFFIXES))}")
    return paths


def _golden(
    name: str, path: Path, data: bytes, specs: Mapping[str, ViewSpec], prompt: str | None = None
) -> GoldenImage:
    try:
        return GoldenImage(name, path, make_views(decode(data, max_pixels=MAX_PIXELS), specs), prompt)
    except ImageError as error:
        raise BuildError(f"{path}: {error}; take it out of the golden set") from error
