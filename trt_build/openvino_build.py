"""The CPU engine's graph, compiled ahead: OpenVINO's own format, in int8 where asked for."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from trt_build.errors import BuildError
from worker.scoring.model import Model

CpuPrecision = Literal["fp32", "bf16", "int8"]

Images = Iterable[Mapping[str, NDArray[np.uint8]]]
"""Views of images, one at a time: view name → [*view.shape]."""


def compile_openvino(
    model: Model,
    precision: CpuPrecision,
    calibration: Images = (),
    report: Callable[[int], object] = lambda _done: None,
) -> tuple[bytes, bytes]:
    """The towers as OpenVINO's graph (XML) and weights, with the manifest's inputs and outputs and any batch.

    `fp32` and `bf16` differ in what the engine is told to compute in, not in the files. `int8` quantises by NNCF (after
    training, from the ranges that activations take on the calibration images); the normalisation of pixels stays as it
    is. Raises BuildError.
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


def _quantise(graph: Any, calibration: Images, report: Callable[[int], object]) -> Any:
    try:
        import nncf  # takes seconds, and only int8 needs it
    except ImportError as error:
        raise BuildError(f"int8 needs NNCF ({error}); pip install 'sluice[quantize]'") from error
    images = list(calibration)
    if not images:
        raise BuildError("int8 needs images to calibrate with; give some")
    done = 0

    def feed(views: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
        nonlocal done
        done += 1
        report(done)
        return {name: pixels[None] for name, pixels in views.items()}

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its own progress bars
        try:
            return nncf.quantize(graph, nncf.Dataset(images, feed), subset_size=len(images), fast_bias_correction=True)
        except Exception as error:  # NNCF raises all kinds
            raise BuildError(f"NNCF could not quantise the graph: {error}") from error
