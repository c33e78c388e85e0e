"""The sample images that ship: AI-generated, with human scores."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLES = Path(__file__).parent
SAMPLE_IMAGES = SAMPLES / "images"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of AGIQA-3K. `human` is the mean opinion of its quality, about 0 to 5."""

    path: Path
    generator: str
    prompt: str
    human: float


def load_samples() -> Sequence[Sample]:
    """The samples, in the order of samples.csv."""
    with (SAMPLES / "samples.csv").open(newline="", encoding="utf-8") as file:
        return [
            Sample(SAMPLE_IMAGES / row["image"], row["generator"], row["prompt"], float(row["mos_quality"]))
            for row in csv.DictReader(file)
        ]
