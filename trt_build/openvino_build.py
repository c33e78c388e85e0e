"""The CPU engine's graph, compiled ahead: OpenVINO's own format, in int8 where asked for."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from trt_build.errors import BuildError
from trt_build.reports import LayerReport
from worker.scoring.model import Model
from worker.scoring.openvino_graph import computes_bf16
from worker.scoring.precision import CpuPrecision

_TOLD = ("execOrder", "layerType", "runtimePrecision")

ImageViews = Mapping[str, NDArray[np.uint8]]
"""Views of one image: view name → [*view.shape]."""


def compile_openvino(
    model: Model,
    precision: CpuPrecision,
    calibration: Iterable[ImageViews] = (),
    report: Callable[[int], object] = lambda _done: None,
) -> tuple[bytes, bytes]:
    """The towers as OpenVINO's graph (XML) and weights, with the manifest's inputs and outputs and any batch.

    `fp32` and `bf16` differ in the engine's precision setting, not in the files. `int8` quantises by NNCF (after
    training, from the ranges that activations take on the calibration images); the normalisation of pixels stays as it
    is, and what is not quantised computes in bf16. Raises BuildError.
    """
    core = ov.Core()
    graph = core.read_model(model.graph)
    graph.reshape({name: [-1, *view.shape] for name, view in model.manifest.views.items()})
    if precision == "int8":
        graph = _quantise(graph, calibration, report)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "towers.xml"
        ov.save_model(graph, file, compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


def openvino_layers(compiled: tuple[bytes, bytes], precision: CpuPrecision) -> Iterator[LayerReport]:
    """The layers that OpenVINO makes of a compiled graph on this machine's processors, in the order it runs them."""
    core = ov.Core()
    graph = core.read_model(*compiled)
    graph.reshape({port.get_any_name(): [1, *list(port.get_partial_shape())[1:]] for port in graph.inputs})
    hint = "bf16" if precision != "fp32" and computes_bf16() else "f32"
    made = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint}).get_runtime_model()
    told = [(layer, {name: str(layer.get_rt_info()[name].value) for name in _TOLD}) for layer in made.get_ops()]
    for layer, info in sorted(told, key=lambda each: int(each[1]["execOrder"])):
        if info["layerType"] != "Const":
            yield LayerReport(
                name=layer.get_friendly_name(),
                kind=info["layerType"],
                precision=info["runtimePrecision"],
                shapes=tuple(str(port.get_partial_shape()) for port in layer.outputs()),
            )


def _quantise(graph: Any, calibration: Iterable[ImageViews], report: Callable[[int], object]) -> Any:
    try:
        import nncf  # takes seconds, and only int8 needs it
    except ImportError as error:
        raise BuildError(f"int8 needs NNCF ({error}); pip install 'sluice[quantize]'") from error
    images = list(calibration)
    if not images:
        raise BuildError("int8 needs images to calibrate with; give some")
    done = 0

    def feed(views: ImageViews) -> dict[str, NDArray[np.uint8]]:
        nonlocal done
        done += 1
        report(done)
        return {name: pixels[None] for name, pixels in views.items()}

    # For attention NNCF smooths activations before it quantises: CLIP's towers rank images alike to 0.993 with it, to
    # 0.970 without, at the same speed.
    attends = any(node.get_type_name() == "Softmax" for node in graph.get_ops())
    kind = nncf.ModelType.TRANSFORMER if attends else None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its own progress bars
        try:
            return nncf.quantize(
                graph, nncf.Dataset(images, feed), model_type=kind, subset_size=len(images), fast_bias_correction=True
            )
        except Exception as error:  # NNCF raises all kinds
            raise BuildError(f"NNCF could not quantise the graph: {error}") from error
