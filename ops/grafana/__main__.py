"""Writes the Grafana dashboards as JSON: python -m ops.grafana [--check]

The JSON is made with Grafana's own library (grafana-foundation-sdk), which knows the schema that its server expects.
"""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import StackingConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableHide, VariableRefresh

from ops.grafana.panels import DASHBOARDS, DashboardSpec, Panel

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24
HEIGHT = {"stat": 5, "time series": 9}


def rendered(spec: DashboardSpec) -> str:
    """The dashboard as JSON, with a choice of the data source and of the job."""
    made = (
        dashboard.Dashboard(spec.title)
        .uid(spec.uid)
        .tags(["sluice"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Job")
            .datasource(SOURCE)
            .query("label_values(sluice_build_info, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .hide(VariableHide.DONT_HIDE)
        )
    )
    for title, panels in spec.rows:
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel, COLUMNS // 4 if panel.kind == "stat" else COLUMNS // 2))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the files are as they would be written")
    check = parser.parse_args().check
    stale = []
    for spec in DASHBOARDS:
        path, text = FOLDER / f"{spec.uid}.json", rendered(spec)
        if check and (not path.exists() or path.read_text() != text):
            stale.append(str(path))
        elif not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; write them with python -m ops.grafana")


def _panel(panel: Panel, width: int) -> timeseries.Panel | stat.Panel:
    made = stat.Panel() if panel.kind == "stat" else timeseries.Panel()
    made = (
        made.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .min(0)
        .datasource(SOURCE)
        .span(width)
        .height(HEIGHT[panel.kind])
    )
    if isinstance(made, timeseries.Panel) and panel.stacked:
        made = made.fill_opacity(30).stacking(StackingConfig().mode(StackingMode.NORMAL))
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + number))
        made = made.with_target(target.legend_format(query.legend) if query.legend else target)
    return made


if __name__ == "__main__":
    main()
