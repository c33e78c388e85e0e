"""From the scores of an animation's frames to those of the animation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas import Scores

AnimationScore = Literal["worst", "mean", "first"]


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """Which frames of an animation are scored."""

    count: int
    """Of all frames."""
    numbers: tuple[int, ...]
    """Of those that are scored, from 0."""
    score: AnimationScore = "worst"

    def combine(self, scores: Sequence[Scores]) -> tuple[Scores, int]:
        """The scores of the animation, from those of its frames in the order of `numbers`; and the index of the frame
        that stands for it, whose features are kept."""
        worst = min(range(len(scores)), key=lambda index: scores[index].quality)
        index = 0 if self.score == "first" else worst
        changes: dict[str, object] = {"frames": self.count, "worst_frame": self.numbers[worst]}
        if self.score == "mean":
            changes |= {
                "quality": float(np.mean([each.quality for each in scores])),
                "anchors": _mean([each.anchors for each in scores]),
                "coarse_share": _mean_number([each.coarse_share for each in scores]),
                "correspondence": _mean_number([each.correspondence for each in scores]),
            }
        return scores[index].model_copy(update=changes), index


def _mean(rows: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    known = [row for row in rows if row is not None]
    return tuple(map(float, np.mean(known, axis=0))) if len(known) == len(rows) else None


def _mean_number(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
