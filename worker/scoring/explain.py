"""Explains a score: the distribution over the grades, the weight of each stream, and a heat map of the fine stream."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Scores
from worker.scoring.engine import Engine, Features
from worker.scoring.model import Model
from worker.view import ViewSpec

CELLS = 10
BATCH = 10

Pixels = NDArray[np.uint8]
MakeViews = Callable[[Pixels, Mapping[str, ViewSpec]], Mapping[str, NDArray[np.uint8]]]
"""Makes an image's views: `worker.images.views.make_views`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`scores` of the image; `relief`, [cells, cells]: how much the score rises when a cell is hidden from the fine
    stream, relative to the median cell. Positive: the cell lowers the score. Negative: it raises the score.
    """

    scores: Scores
    relief: NDArray[np.float64]


def explain(
    model: Model,
    engine: Engine,
    pixels: Pixels,
    make_views: MakeViews,
    *,
    cells: int = CELLS,
    advance: Callable[[], None] = lambda: None,
) -> Explanation:
    """Explains the score of an image, (H, W, 3) RGB, by occlusion.

    Each cell in turn is covered with the image's mean colour and scored again by the fine tower; the coarse features
    stay those of the full image. The median change is subtracted, because the cover itself lowers the score everywhere.
    `advance` is called for each cell. Raises EngineError.
    """
    heads = model.manifest.heads

    def features(images: list[Pixels]) -> Features:
        views = [make_views(image, model.manifest.views) for image in images]
        return engine.infer({name: np.stack([view[name] for view in views]) for name in model.manifest.views})

    whole = features([pixels])
    coarse = whole[heads.coarse]
    scores = model.heads.score(whole)[0]
    changes = np.empty(cells * cells)
    batch = min(BATCH, engine.max_batch)
    covered = list(_covers(pixels.shape[0], pixels.shape[1], cells))
    colour = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    for start in range(0, len(covered), batch):
        spots = covered[start : start + batch]
        fine = features([_cover(pixels, spot, colour) for spot in spots])[heads.fine]
        judged = model.heads.score({heads.coarse: np.repeat(coarse, len(spots), axis=0), heads.fine: fine})
        changes[start : start + len(spots)] = [entry.quality - scores.quality for entry in judged]
        for _ in spots:
            advance()
    relief = (changes - np.median(changes)).reshape(cells, cells)
    return Explanation(scores, relief)


Spot = tuple[slice, slice]


def _covers(height: int, width: int, cells: int) -> Iterator[Spot]:
    """Cells in reading order, each enlarged by half a cell on every side, so that damage at an edge is covered
    fully.
    """
    for row in range(cells):
        for column in range(cells):
            yield _stretch(row, height, cells), _stretch(column, width, cells)


def _stretch(index: int, length: int, cells: int) -> slice:
    step = length / cells
    return slice(max(0, round((index - 0.5) * step)), max(1, min(length, round((index + 1.5) * step))))


def _cover(pixels: Pixels, spot: Spot, colour: NDArray[np.uint8]) -> Pixels:
    covered = pixels.copy()
    covered[spot] = colour
    return covered
