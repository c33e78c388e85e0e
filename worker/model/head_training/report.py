"""The page of a training run: predictions against people, loss curves, the gate."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from worker.charts import STROKES, Axis, Chart, Line, Tick
from worker.html_report.pages import render as render_page
from worker.model.evaluation.evaluation_charts import agreement_chart, share_axis
from worker.model.evaluation.page import TITLES, ScoreSection
from worker.model.head_training.fit import Epoch
from worker.model.head_training.run import TrainingOutcome
from worker.scoring.manifest import PromptScore


def loss_chart(curves: Sequence[Sequence[Epoch]]) -> Chart:
    """Mean training loss of each fold by epoch; each fold has a colour of its own, as light as the others."""
    epochs = max(len(curve) for curve in curves)
    highest = max(max(epoch.loss for curve in curves for epoch in curve), 1e-9)
    lines = [
        Line(
            f"fold {index + 1}",
            f"oklch(62% 0.15 {30 + 360 * index / len(curves):.0f})",
            [(at, epoch.loss, f"epoch {at}: {epoch.loss:.4f}") for at, epoch in enumerate(curve, start=1)],
            STROKES[index % len(STROKES)],
        )
        for index, curve in enumerate(curves)
    ]
    ticks = [Tick(at, str(round(at))) for at in (0, epochs / 2, epochs)]
    return Chart("Training loss", Axis("epoch", 0, epochs, ticks), Axis.from_zero("loss", highest), lines)


def gate_chart(gate: Sequence[float]) -> Chart:
    """Each fused dimension's mean gate, from the one that takes most from the fine stream."""
    last = max(len(gate) - 1, 1)
    line = Line("coarse share", "var(--pass)", [(index, share, "") for index, share in enumerate(gate)])
    ticks = [Tick(at, str(round(at + 1))) for at in (0, last / 2, last)]
    across = Axis("dimension, sorted", 0, last, ticks)
    return Chart("Which stream each dimension takes from", across, share_axis("coarse stream"), [line])


def render(
    outcome: TrainingOutcome[Any],
    created_at: datetime,
    training_data: tuple[str, ...],
    prompts: Mapping[PromptScore, TrainingOutcome[Any]],
) -> str:
    """The page, self-contained; `prompts`: the outcomes of the prompt heads."""
    beside = [ScoreSection(TITLES[score], each.evaluation, _charts(each)) for score, each in prompts.items()]
    return render_page(
        "worker.model.evaluation",
        "evaluation.html.j2",
        evaluation=outcome.evaluation,
        created_at=created_at,
        trained_on=training_data,
        charts=_charts(outcome),
        beside=beside,
        note="Every image was judged by heads that had not seen its prompt; the model's own learned from all.",
    )


def _charts(outcome: TrainingOutcome[Any]) -> list[Chart]:
    return [agreement_chart(outcome.evaluation), loss_chart(outcome.curves), gate_chart(outcome.gate)]
