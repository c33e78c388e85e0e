"""The charts of an evaluation's page."""

from typing import Final

from worker.charts import STROKES, Axis, Chart, Dot, Line, Tick
from worker.model.evaluation.evaluation import Evaluation

LOWEST, HIGHEST = 1.0, 5.0
MOST_DOTS: Final = 3000
SHARE_TICKS: Final = tuple(Tick(value, f"{value:.0%}") for value in (0, 0.25, 0.5, 0.75, 1))


def quality_axis(title: str) -> Axis:
    return Axis(title, LOWEST, HIGHEST, [Tick(value, str(value)) for value in range(1, 6)])


def share_axis(title: str) -> Axis:
    return Axis(title, 0.0, 1.0, SHARE_TICKS)


def agreement_chart(evaluation: Evaluation) -> Chart:
    """Each image: people's score across, the model's up; at most MOST_DOTS of them, evenly drawn."""
    step = max(1, -(-len(evaluation.human) // MOST_DOTS))
    rows = list(zip(evaluation.names, evaluation.human, evaluation.predicted, strict=True))[::step]
    dots = [
        Dot(human, predicted, "var(--pass)", f"{name}: human {human:.2f}, model {predicted:.2f}")
        for name, human, predicted in rows
    ]
    return Chart("Each image", quality_axis("people"), quality_axis("model"), dots=dots, diagonal=True)


def calibration_chart(evaluation: Evaluation) -> Chart:
    """Tenths of the images: the mean prediction across, people's mean up."""
    points = [
        (
            part.predicted,
            part.human,
            f"{part.images} images: model {part.predicted:.2f}, human {part.human:.2f}",
        )
        for part in evaluation.calibration
    ]
    line = Line("tenths of the images", "var(--pass)", points, dots=True)
    return Chart("Calibration", quality_axis("model"), quality_axis("people"), [line], diagonal=True)


def threshold_chart(evaluation: Evaluation) -> Chart:
    """Precision, recall and the share sent to review, by threshold."""
    lines = []
    for (name, colour), stroke in zip(
        (("precision", "pass"), ("recall", "review"), ("volume", "reject")), STROKES, strict=True
    ):
        points = [
            (at.threshold, value, f"below {at.threshold:.2f}: {name} {value:.0%}")
            for at in evaluation.thresholds
            if (value := getattr(at, name)) is not None
        ]
        lines.append(Line("sent to review" if name == "volume" else name, f"var(--{colour})", points, stroke))
    return Chart("Effect of the threshold", quality_axis("threshold"), share_axis("share"), lines)
