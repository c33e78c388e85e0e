"""The golden set: images that every engine is compared on, whole ones and spoiled ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trt_build.errors import BuildError
from worker.demo.degrade import DEGRADATIONS
from worker.demo.sample import load_samples
from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.images.views import make_views
from worker.view import ViewSpec

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"}
MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """An image and what the model sees of it. `name` says how it was spoiled: `a.jpg`, `a.jpg, blur`."""

    name: str
    path: Path
    views: Mapping[str, NDArray[np.uint8]]


def golden_images(specs: Mapping[str, ViewSpec], folder: Path | None = None) -> Iterator[GoldenImage]:
    """Every image of the folder, or every sample that ships, each followed by its degraded copies.

    Raises BuildError for a folder without images and for an image that cannot be read.
    """
    for path in _paths(folder):
        data = path.read_bytes()
        yield _golden(path.name, path, data, specs)
        with Image.open(BytesIO(data)) as image:
            whole = image.convert("RGB")
        for name, degrade in DEGRADATIONS.items():
            yield _golden(f"{path.name}, {name}", path, degrade(whole), specs)


def calibration_images(
    specs: Mapping[str, ViewSpec], folder: Path | None = None
) -> Iterator[Mapping[str, NDArray[np.uint8]]]:
    """The views of every image of the folder, or of every sample that ships, as they are. Raises BuildError."""
    for path in _paths(folder):
        yield _golden(path.name, path, path.read_bytes(), specs).views


def count_golden(folder: Path | None = None) -> int:
    """How many images `golden_images` gives."""
    return len(_paths(folder)) * (1 + len(DEGRADATIONS))


def _paths(folder: Path | None) -> Sequence[Path]:
    if folder is None:
        return [sample.path for sample in load_samples()]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise BuildError(f"{folder}: no images here; the golden set is a folder of {', '.join(sorted(SUFFIXES))}")
    return paths


def _golden(name: str, path: Path, data: bytes, specs: Mapping[str, ViewSpec]) -> GoldenImage:
    try:
        return GoldenImage(name, path, make_views(decode(data, max_pixels=MAX_PIXELS), specs))
    except ImageError as error:
        raise BuildError(f"{path}: {error}; take it out of the golden set") from error
