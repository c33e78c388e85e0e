"""How alike a trained vision transformer ranks images in bfloat16 and int8 as in float32, on processors.

    python -m ops.benchmarks.trained_tower_benchmark TOWER.onnx [--output NAME] [--short] [--out FOLDER]

Towers with random weights tell how fast an engine is, and less of how alike it ranks: what they see in images lies
otherwise than what trained ones see. TOWER.onnx is a trained one that takes float32 [batch, 3, side, side], normalised
as for ImageNet; `--output` names the value to take, [batch, features] or [batch, tokens, features] with the class token
first; absent: the graph's own output. Nothing of it is kept.

Scores are linear in the features, each by weights drawn at random: heads that nobody trained. Told are the error of the
features beside what sets images apart (both as root mean squares), and Spearman's rank correlation with float32.
"""

import argparse
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13
from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish, timed
from trt_build.golden import calibration_images, golden_images
from worker.charts import bar_chart
from worker.rank_correlation import rank_correlation
from worker.scoring.openvino_graph import computes_bf16
from worker.view import ViewSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEADS = 200

Pixels = NDArray[np.float32]
Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Alike:
    """A precision beside float32 for one kind of feature."""

    precision: str
    features: str
    processor_ms: float
    error: float
    median_spearman: float
    lowest_spearman: float


class Tower:
    """The graph up to one value, for one image at a time."""

    def __init__(self, file: Path, output: str | None) -> None:
        self._file = file
        self._output = output
        side = self.graph().inputs[0].get_partial_shape()[2]
        self.side = side.get_length() if side.is_static else 224

    def graph(self, side: int | None = None) -> ov.Model:
        """Read each time, because quantising changes it."""
        graph = ov.Core().read_model(self._file)
        if self._output is not None:
            ports = [port for node in graph.get_ops() for port in node.outputs() if self._output in port.get_names()]
            if not ports:
                raise SystemExit(f"{self._file}: no value is called {self._output}")
            graph = ov.Model([opset13.result(ports[0])], graph.get_parameters(), "tower")
        if side is not None:
            graph.reshape([1, 3, side, side])
        return graph


def prepared(views: Mapping[str, NDArray[np.uint8]]) -> Pixels:
    pixels = (views["whole"].astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def features(graph: ov.Model, precision: str, images: Sequence[Pixels]) -> tuple[dict[str, Features], float]:
    """Kind → [images, features], and the milliseconds of processor time that an image took."""
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()
    request.infer({0: images[0]})
    found: list[Features] = []
    spent = timed(
        len(images), lambda: found.extend(np.array(request.infer({0: image})[0][0], np.float64) for image in images)
    )
    rows = np.stack(found)
    if rows.ndim == 2:
        return {"features": rows}, spent.processor_ms
    return {"class token": rows[:, 0], "mean of the patches": rows[:, 1:].mean(axis=1)}, spent.processor_ms


def compare(name: str, kind: str, expected: Features, found: Features, processor_ms: float) -> Alike:
    apart = np.sqrt(np.mean(np.square(expected - expected.mean(axis=0))))
    error = np.sqrt(np.mean(np.square(found - expected)))
    heads = np.random.default_rng(0).normal(size=(HEADS, expected.shape[1]))
    ranks = [rank_correlation(list(expected @ head), list(found @ head)) or 0.0 for head in heads]
    return Alike(name, kind, round(processor_ms, 1), float(error / apart), statistics.median(ranks), min(ranks))


def measure(tower: Tower, images: Sequence[Pixels], calibration: Sequence[Pixels]) -> Iterator[Alike]:
    expected, spent = features(tower.graph(tower.side), "f32", images)
    for kind, rows in expected.items():
        yield compare("fp32", kind, rows, rows, spent)
    if computes_bf16():
        found, spent = features(tower.graph(tower.side), "bf16", images)
        for kind, rows in found.items():
            yield compare("bf16", kind, expected[kind], rows, spent)
    quantised = nncf.quantize(
        tower.graph(tower.side),
        nncf.Dataset(list(calibration)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        fast_bias_correction=True,
    )
    found, spent = features(quantised, "bf16" if computes_bf16() else "f32", images)
    for kind, rows in found.items():
        yield compare("int8", kind, expected[kind], rows, spent)


def run(options: Options, given: argparse.Namespace) -> None:
    tower = Tower(given.tower, given.output)
    specs = {"whole": ViewSpec(size=tower.side, resize="squash", mean=MEAN, std=STD)}
    count, calibrated = (10, 2) if options.short else (150, 30)
    images = [prepared(image.views) for image in islice(golden_images(specs), count)]
    calibration = [prepared(views) for views in islice(calibration_images(specs), calibrated)]
    found = list(measure(tower, images, calibration))
    table = Table("precision", "features", "CPU ms an image", "error / spread", "Spearman, median", "lowest")
    table.title = f"{given.tower.name}: {len(images)} images, {HEADS} heads, beside fp32"
    for one in found:
        table.add_row(
            one.precision,
            one.features,
            f"{one.processor_ms:,.1f}",
            f"{one.error:.4f}",
            f"{one.median_spearman:.5f}",
            f"{one.lowest_spearman:.5f}",
        )
    report = {
        "measured_on": machine("openvino", "nncf"),
        "images": len(images),
        "found": [asdict(one) for one in found],
    }
    plot = bar_chart("A trained tower", "lost rank correlation", {
        f"{one.precision}: {one.features}": 1 - one.median_spearman for one in found if one.precision != "fp32"
    })  # fmt: skip
    publish("trained_tower", options, report, [table], plot)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("tower", type=Path, metavar="TOWER.onnx")
    parser.add_argument("--output", metavar="NAME", help="the value to take; absent: the graph's output")
    given = parser.parse_args()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    run(Options(given.short, given.out), given)


if __name__ == "__main__":
    main()
