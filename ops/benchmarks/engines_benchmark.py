"""Engines against each other, on mst-lite and on CLIP's towers: speed beside torch's, and whether they judge alike.

    python -m ops.benchmarks.engines_benchmark [--short] [--out FOLDER] [--model mst-lite] [--model clip]

Every engine takes the same batch as torch, one right after the other, round by round; a ratio is the median over the
rounds of (torch's time / the engine's). Judging alike is Spearman's rank correlation between the engine's scores and
those of torch in float32, over images of the golden set. The CLIP towers have random weights: their speed is that of
trained ones, and their scores vary little from image to image, which makes ranking alike harder, not easier.
"""

import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.table import Table

from ops.benchmarks.inputs import Batch, clip_sized_model, golden_views, sample_views
from ops.benchmarks.results import Options, Timed, console, machine, median_ratio, option_parser, publish, timed
from trt_build.golden import calibration_images
from trt_build.openvino_build import compile_openvino
from worker.charts import bar_chart
from worker.rank_correlation import rank_correlation
from worker.scoring.engine import Engine, EngineError, Features, Prompts, Views
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.openvino_graph import computes_bf16
from worker.scoring.torch_engine import TorchEngine

REFERENCE = "torch eager, fp32"
BATCH = 16
ROUNDS = 3
COMPARED = {"mst-lite": 150, "clip": 40}
"""Images on which scores are compared."""
CALIBRATION = 16


class OnnxRuntimeEngine:
    """The model's own graph in ONNX Runtime, on the CPU unless told otherwise: what one would use without Sluice."""

    def __init__(self, model: Model, *, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        """Raises EngineError for a provider that is not there; ONNX Runtime itself would take the CPU."""
        if missing := set(providers) - set(onnxruntime.get_available_providers()):
            raise EngineError(f"onnxruntime {onnxruntime.__version__} has no {', '.join(sorted(missing))}")
        self._towers = [tower.name for tower in model.manifest.towers]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model.graph, options, providers=list(providers))
        if missing := set(providers) - set(self._session.get_providers()):
            raise EngineError(f"onnxruntime {onnxruntime.__version__} could not start {', '.join(sorted(missing))}")

    @property
    def max_batch(self) -> int:
        return 64

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:  # noqa: ARG002
        try:
            return dict(zip(self._towers, self._session.run(self._towers, dict(views)), strict=True))
        except RuntimeError as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def close(self) -> None:
        """Nothing is held that its end would not free."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An engine: medians over the rounds; `ratio` to torch eager in the same round; `spearman` to torch's scores."""

    engine: str
    images_per_second: float
    processor_ms: float
    ratio: float
    spearman: float | None
    largest_score_error: float


Makers = Mapping[str, Callable[[], Engine]]

Scores = NDArray[np.float64]
"""Of each image."""


def makers(model: Model, options: Options) -> Makers:
    """What is compared, the reference first. Processors without bfloat16 are not asked for it."""

    def int8() -> Engine:
        images = list(calibration_images(model.manifest.views))[: 2 if options.short else CALIBRATION]
        return OpenVinoEngine(model, precision="bf16", prebuilt=compile_openvino(model, "int8", images))

    found: dict[str, Callable[[], Engine]] = {
        REFERENCE: lambda: TorchEngine(model),
        "onnxruntime, fp32": lambda: OnnxRuntimeEngine(model),
        "openvino, fp32": lambda: OpenVinoEngine(model, precision="f32"),
    }
    if computes_bf16():
        found["openvino, bf16"] = lambda: OpenVinoEngine(model, precision="bf16")
    return found | {"openvino, int8": int8}


def measure(model: Model, makers: Makers, batch: Batch, images: Batch, rounds: int) -> list[Measured]:
    """Each engine in turn with the reference beside it: two at once, since all of them would want 15 GB for CLIP."""
    size = len(next(iter(batch.values())))
    found = []
    with closing(makers[REFERENCE]()) as reference:
        reference.infer(batch)  # warms up
        expected = _scores(model, reference, images)
        spent = [timed(size, lambda: reference.infer(batch)) for _ in range(rounds)]
        found.append(_measured(REFERENCE, spent, spent, expected, expected))
        for name, make in makers.items():
            if name == REFERENCE:
                continue
            with closing(make()) as engine:
                engine.infer(batch)
                spent, beside = [], []
                for _ in range(rounds):
                    beside.append(timed(size, lambda: reference.infer(batch)))
                    spent.append(timed(size, lambda engine=engine: engine.infer(batch)))
                found.append(_measured(name, spent, beside, expected, _scores(model, engine, images)))
            console.print(f"{name}: {found[-1].ratio:.2f} times torch")
    return found


def _measured(name: str, spent: Sequence[Timed], beside: Sequence[Timed], expected: Scores, found: Scores) -> Measured:
    speeds = [each.per_second for each in spent]
    return Measured(
        engine=name,
        images_per_second=round(statistics.median(speeds), 2),
        processor_ms=round(statistics.median(each.processor_ms for each in spent), 2),
        ratio=round(median_ratio(speeds, [each.per_second for each in beside]), 2),
        spearman=rank_correlation(list(expected), list(found)),
        largest_score_error=float(np.abs(found - expected).max()),
    )


def _scores(model: Model, engine: Engine, images: Batch) -> Scores:
    count = len(next(iter(images.values())))
    found = [
        score.quality
        for start in range(0, count, 8)
        for score in model.heads.score(engine.infer({name: rows[start : start + 8] for name, rows in images.items()}))
    ]
    return np.array(found)


def models(names: Sequence[str]) -> Iterator[tuple[str, Model]]:
    """Each model that is asked for, made when its turn has come."""
    for name in names:
        if name == "clip":
            console.print("making towers of CLIP's size ...")
            with tempfile.TemporaryDirectory() as folder:
                yield name, clip_sized_model(Path(folder))
        else:
            yield name, load_model(name)


def run(options: Options, names: Sequence[str]) -> None:
    tables, report, plotted = [], dict[str, Any](), dict[str, float]()
    for name, model in models(names):
        rounds, size = (1, 2) if options.short else (ROUNDS, BATCH)
        compared = 5 if options.short else COMPARED.get(name, 40)
        specs = model.manifest.views
        batch, images = sample_views(specs, size), golden_views(specs, compared)
        found = measure(model, makers(model, options), batch, images, rounds)
        tables.append(_table(name, found, size, compared))
        report[name] = {"batch": size, "rounds": rounds, "images": compared, "engines": [asdict(one) for one in found]}
        plotted |= {f"{name}: {one.engine}": one.images_per_second for one in found}
    versions = machine("torch", "onnxruntime", "openvino", "nncf")
    plot = bar_chart("Engines", "images a second", plotted)
    publish("engines", options, {"measured_on": versions, "models": report}, tables, plot)


def _table(name: str, found: Sequence[Measured], size: int, compared: int) -> Table:
    table = Table("engine", "images/s", "CPU ms an image", "times torch", "Spearman", "largest score error")
    table.title = f"{name}: batches of {size}; scores of {compared} images beside torch's"
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        spearman = "none" if one.spearman is None else f"{one.spearman:.4f}"
        table.add_row(
            one.engine,
            f"{one.images_per_second:,.1f}",
            f"{one.processor_ms:,.1f}",
            f"{one.ratio:.2f}",
            spearman,
            f"{one.largest_score_error:.4f}",
        )
    return table


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--model", action="append", metavar="NAME", help="mst-lite, clip, a manifest; absent: both")
    given = parser.parse_args()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    run(Options(given.short, given.out), given.model or ["mst-lite", "clip"])


if __name__ == "__main__":
    main()
