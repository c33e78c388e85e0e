"""One image as a report shows it."""

from dataclasses import dataclass

from schemas import Failure, Provenance, Route, Scores


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
    provenance: Provenance | None = None

    @property
    def origin(self) -> str:
        """What the file says of where it comes from, in a few words; empty where it says nothing."""
        said = self.provenance
        if said is None or not said.found:
            return ""
        words = [said.generator, said.model, said.source_type or said.c2pa_source_type]
        if said.c2pa != "absent":
            words.append(f"C2PA {said.c2pa}")
        return "the file says: " + ", ".join(word for word in words if word)

    @property
    def quality(self) -> float | None:
        return None if self.scores is None else self.scores.quality
