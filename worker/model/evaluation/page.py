"""Writes the evaluation as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.charts import Chart
from worker.html_report.pages import render as render_page
from worker.model.evaluation.evaluation import Evaluation
from worker.model.evaluation.evaluation_charts import agreement_chart, calibration_chart, threshold_chart
from worker.scoring.manifest import PromptScore


@dataclass(frozen=True, slots=True)
class ScoreSection:
    """The page's title of a score with the prompt."""

    title: str
    evaluation: Evaluation
    charts: Sequence[Chart]


TITLES: Mapping[PromptScore, str] = {
    "quality": "Quality beside the prompt",
    "correspondence": "Correspondence: how well images fit their prompts",
}


def render(
    evaluation: Evaluation,
    created_at: datetime,
    trained_on: tuple[str, ...],
    correspondence: Evaluation | None = None,
) -> str:
    """The page. All data is escaped, and the page's own content security policy forbids scripts and requests."""
    beside = []
    if correspondence is not None:
        charts = [agreement_chart(correspondence), calibration_chart(correspondence)]
        beside.append(ScoreSection(TITLES["correspondence"], correspondence, charts))
    return render_page(
        "worker.model.evaluation",
        "evaluation.html.j2",
        evaluation=evaluation,
        created_at=created_at,
        trained_on=trained_on,
        charts=[agreement_chart(evaluation), calibration_chart(evaluation), threshold_chart(evaluation)],
        beside=beside,
        note=None,
    )
