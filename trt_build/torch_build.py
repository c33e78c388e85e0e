"""The torch engine's graphs, made ahead: those that TensorRT gets, in the precision of the engine."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, shape_inference

from trt_build.reports import LayerReport
from worker.scoring.cuda_device import NoDevice
from worker.scoring.graph_precision import prepare_graphs
from worker.scoring.model import Model
from worker.scoring.opening import has_gpu
from worker.scoring.precision import TorchPrecision
from worker.scoring.torch_engine import NO_GPU, TorchEngine


def prepare_torch(model: Model, precision: TorchPrecision) -> list[bytes]:
    """The graphs of towers and text tower, after one blank image has gone through them on the processors.

    Kernels are made from them by torch.compile where the engine starts. Raises BuildError for a graph that torch cannot
    run, and EngineError for one that gives nothing of use.
    """
    graphs = prepare_graphs(model, precision)
    blank = {name: np.zeros((1, *view.shape), np.uint8) for name, view in model.manifest.views.items()}
    engine = TorchEngine(model, precision=precision, prebuilt=graphs)
    try:
        engine.infer(blank, ["a cat"] if model.manifest.judges_prompts else None)
    finally:
        engine.close()
    return graphs


def torch_layers(graphs: Sequence[bytes]) -> Iterator[LayerReport]:
    """The steps of the graphs, before torch.compile fuses them."""
    for graph in graphs:
        inferred = shape_inference.infer_shapes(onnx.load_from_string(graph)).graph
        known = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
        for node in inferred.node:
            made = [known[name] for name in node.output if name in known]
            yield LayerReport(
                name=node.name or node.output[0],
                kind=node.op_type,
                precision=", ".join(sorted({TensorProto.DataType.Name(value.elem_type).lower() for value in made})),
                shapes=tuple(_shape(value) for value in made),
            )


def own_compute_capability() -> str | None:
    """Of this machine's GPU; None where there is none. Raises NoDevice for a GPU that torch does not see."""
    if torch.cuda.is_available():
        return TorchEngine.compute_capability()
    if has_gpu():
        raise NoDevice(f"{NO_GPU}, or name the GPUs to build for: --compute-capability 8.9,9.0")
    return None


def _shape(value: onnx.TypeProto.Tensor) -> str:
    return str([size.dim_param or size.dim_value for size in value.shape.dim])
