"""One image as a report shows it."""

from dataclasses import dataclass

from schemas import Failure, Route, Scores


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """What became of one image.

    Exactly one of `scores` and `failure` is set. `thumbnail` is a small JPEG, where the image could be decoded.
    `human` is the mean opinion of people, where known, on the model's scale of 1 to 5. A degraded copy names its
    `original` and the `degradation` that made it.
    """

    name: str
    route: Route
    scores: Scores | None
    failure: Failure | None = None
    thumbnail: bytes | None = None
    cached: bool = False
    generator: str | None = None
    human: float | None = None
    original: str | None = None
    degradation: str | None = None

    @property
    def quality(self) -> float | None:
        return None if self.scores is None else self.scores.quality
