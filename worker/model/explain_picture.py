"""Draws an explanation: the image, the heat map, the distribution over the grades, the weight of each stream."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.scoring.explain import Explanation
from worker.scoring.heat import GOOD, heat_map

SIDE = 460
GAP = 24
WIDTH = 2 * SIDE + 3 * GAP
BAR = 22

PAPER, INK, SOFT, WELL = (247, 246, 243), (27, 26, 24), (93, 90, 84), (226, 223, 216)
COARSE, FINE = (20, 128, 122), (185, 106, 0)


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of the picture."""

    image: str
    model: str
    anchors: tuple[str, ...]


def draw(pixels: NDArray[np.uint8], explanation: Explanation, words: Words) -> Image.Image:
    """The picture of an image, (H, W, 3) RGB, and its explanation."""
    photo = _fit(Image.fromarray(pixels))
    scores = explanation.scores
    top = 84
    bottom = top + photo.height + GAP
    page = Image.new("RGB", (WIDTH, bottom + 70 + 5 * (BAR + 8) + 100), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, 16), f"{scores.quality:.2f}", INK, _font(38))
    pen.text((GAP + 96, 22), f"of 5: {_short(words.image)}", INK, _font(17))
    pen.text((GAP + 96, 44), words.model, SOFT, _font(14))
    page.paste(photo, (GAP, top))
    page.paste(heat_map(photo, explanation.relief), (SIDE + 2 * GAP, top))
    pen.text((GAP, bottom - 14), "the image", SOFT, _font(13))
    largest = float(np.abs(explanation.relief).max())
    for line, text in enumerate(
        (
            "by occlusion: red where hiding a spot from the fine stream raises the score",
            f"more than elsewhere (it sees damage there), blue where less; {largest:.3f} points at most",
        )
    ):
        pen.text((SIDE + 2 * GAP, bottom - 14 + 17 * line), text, SOFT, _font(12))
    y = bottom + 40
    if scores.anchors is not None:
        pen.text((GAP, y - 8), "probability of each grade", SOFT, _font(13))
        for index, (name, share) in enumerate(zip(words.anchors, scores.anchors, strict=True)):
            _bar(pen, y + 16 + index * (BAR + 8), f"{index + 1}  {name}", share, GOOD)
        y += 16 + 5 * (BAR + 8) + 18
    if scores.coarse_share is not None:
        text = f"coarse stream {scores.coarse_share:.0%}, fine stream {1 - scores.coarse_share:.0%}"
        pen.text((GAP, y - 8), f"weight of each stream, averaged over the gate's dimensions: {text}", SOFT, _font(13))
        split = GAP + round((WIDTH - 2 * GAP) * scores.coarse_share)
        pen.rectangle((GAP, y + 14, split, y + 14 + BAR), COARSE)
        pen.rectangle((split, y + 14, WIDTH - GAP, y + 14 + BAR), FINE)
    return page


def _fit(image: Image.Image) -> Image.Image:
    scale = SIDE / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


def _bar(pen: ImageDraw.ImageDraw, y: int, name: str, share: float, colour: tuple[int, int, int]) -> None:
    left, right = GAP + 110, WIDTH - GAP - 60
    pen.text((GAP, y + 2), name, INK, _font(15))
    pen.rectangle((left, y, right, y + BAR), WELL)
    pen.rectangle((left, y, left + round((right - left) * share), y + BAR), colour)
    pen.text((right + 10, y + 2), f"{share:.0%}", INK, _font(15))


def _short(name: str, longest: int = 84) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
