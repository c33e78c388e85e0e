"""Writes the evaluation as one HTML page without scripts, fonts or pictures from elsewhere."""

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.model.evaluation.charts import agreement_chart, calibration_chart, threshold_chart
from worker.model.evaluation.evaluation import Evaluation


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


def render(evaluation: Evaluation, created_at: datetime, trained_on: tuple[str, ...]) -> str:
    """The page. Everything that came from outside is escaped; scripts and requests are forbidden by its own policy."""
    return (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            evaluation=evaluation,
            created_at=created_at,
            trained_on=trained_on,
            charts=[agreement_chart(evaluation), calibration_chart(evaluation), threshold_chart(evaluation)],
        )
    )
