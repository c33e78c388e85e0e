"""Writes the evaluation as one HTML page without scripts, fonts or pictures from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.charts import Chart
from worker.model.evaluation.charts import agreement_chart, calibration_chart, threshold_chart
from worker.model.evaluation.evaluation import Evaluation
from worker.scoring.manifest import PromptScore


def environment() -> Environment:
    """Templates of this package; the style is that of the demo's report."""
    made = Environment(
        loader=PackageLoader("worker.model.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["style"] = (Path(__file__).parents[2] / "demo" / "report" / "templates" / "style.css").read_text()
    return made


@dataclass(frozen=True, slots=True)
class ScoreSection:
    """What the page says of a score beside the prompt."""

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
    """The page. Everything that came from outside is escaped; scripts and requests are forbidden by its own policy."""
    beside = []
    if correspondence is not None:
        charts = [agreement_chart(correspondence), calibration_chart(correspondence)]
        beside.append(ScoreSection(TITLES["correspondence"], correspondence, charts))
    return (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            evaluation=evaluation,
            created_at=created_at,
            trained_on=trained_on,
            charts=[agreement_chart(evaluation), calibration_chart(evaluation), threshold_chart(evaluation)],
            beside=beside,
            note=None,
        )
    )
