"""A module as an ONNX file with any batch."""

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.scoring.manifest import FileSpec

OPSET = 20
LARGEST_GRAPH = 2**31 - 1
"""Bytes of one ONNX file: protobuf counts no further."""


class ExportError(Exception):
    """The network cannot be exported as a model. The message says why."""


def to_onnx(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> bytes:
    """The module, whose `forward` takes any number of tensors, as ONNX. `inputs`: an example of each, a batch of two.

    Raises ExportError for one too large.
    """
    size = sum(parameter.nbytes for parameter in module.parameters())
    if size > LARGEST_GRAPH:
        raise ExportError(f"the towers hold {size:,} bytes of weights, and one ONNX file at most {LARGEST_GRAPH:,}")
    batch = torch.export.Dim("batch", min=1, max=4096)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operator has no ONNX
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamic_shapes=(tuple({0: batch} for _ in inputs),),
                dynamo=True,
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    assert program is not None  # with dynamo=True it is one  # noqa: S101
    graph: bytes = program.model_proto.SerializeToString(deterministic=True)
    return graph


def write_file(file: Path, data: bytes) -> FileSpec:
    """Writes the file; its name and digest."""
    file.write_bytes(data)
    return FileSpec(path=file.name, sha256=hashlib.sha256(data).hexdigest())
