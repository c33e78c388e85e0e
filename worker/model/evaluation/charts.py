"""Where the marks of the page's plots go. Drawing them is the template's work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.model.evaluation.evaluation import Evaluation

SIDE = 320
LOWEST, HIGHEST = 1.0, 5.0
MOST_DOTS = 3000

Stroke = Literal["solid", "dashed", "dotted"]
STROKES: tuple[Stroke, ...] = ("solid", "dashed", "dotted")


@dataclass(frozen=True, slots=True)
class Point:
    """A mark, in pixels from the upper left, with what hovering tells."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline with its name; `colour` is CSS. Lines of one plot differ in strokes too, for who sees few colours."""

    name: str
    colour: str
    points: Sequence[Point]
    stroke: Stroke = "solid"

    @property
    def path(self) -> str:
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A square plot with its axes."""

    title: str
    across: str
    up: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    dots: Sequence[Point] = ()
    lines: Sequence[Line] = ()
    diagonal: bool = False
    side: int = SIDE


def along(value: float, lowest: float = LOWEST, highest: float = HIGHEST) -> float:
    """Pixels from the axis' beginning."""
    return (min(max(value, lowest), highest) - lowest) / (highest - lowest) * SIDE


QUALITY_TICKS = tuple(Tick(along(value), str(value)) for value in range(1, 6))
SHARE_TICKS = tuple(Tick(along(value, 0, 1), f"{value:.0%}") for value in (0, 0.25, 0.5, 0.75, 1))


def agreement_chart(evaluation: Evaluation) -> Chart:
    """Each image: people's score across, the model's up; at most MOST_DOTS of them, evenly drawn."""
    step = max(1, -(-len(evaluation.human) // MOST_DOTS))
    rows = list(zip(evaluation.names, evaluation.human, evaluation.predicted, strict=True))[::step]
    dots = [
        Point(along(human), SIDE - along(predicted), f"{name}: people {human:.2f}, model {predicted:.2f}")
        for name, human, predicted in rows
    ]
    return Chart("Each image", "people", "model", QUALITY_TICKS, QUALITY_TICKS, dots, diagonal=True)


def calibration_chart(evaluation: Evaluation) -> Chart:
    """Tenths of the images: the mean prediction across, people's mean up."""
    points = [
        Point(
            along(part.predicted),
            SIDE - along(part.human),
            f"{part.images} images: model {part.predicted:.2f}, people {part.human:.2f}",
        )
        for part in evaluation.calibration
    ]
    line = Line("tenths of the images", "var(--pass)", points)
    return Chart("Calibration", "model", "people", QUALITY_TICKS, QUALITY_TICKS, points, [line], diagonal=True)


def threshold_chart(evaluation: Evaluation) -> Chart:
    """Precision, recall and the share sent to review, by threshold."""
    lines = []
    for (name, colour), stroke in zip(
        (("precision", "pass"), ("recall", "review"), ("volume", "reject")), STROKES, strict=True
    ):
        points = [
            Point(along(at.threshold), SIDE - along(value, 0, 1), f"below {at.threshold:.2f}: {name} {value:.0%}")
            for at in evaluation.thresholds
            if (value := getattr(at, name)) is not None
        ]
        lines.append(Line("sent to review" if name == "volume" else name, f"var(--{colour})", points, stroke))
    return Chart("What a threshold does", "threshold", "share", QUALITY_TICKS, SHARE_TICKS, (), lines)
