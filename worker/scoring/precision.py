"""The precisions of each backend. Separate from the builders, which import onnx, torch or NNCF."""

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16"]
"""Precisions of TensorRT engines, set in the graph."""

Quantised = Literal["int8", "fp8"]
"""Quantised precisions, set by Q/DQ nodes in the graph."""

CpuPrecision = Literal["fp32", "bf16", "int8"]
"""Of OpenVINO's."""

TorchPrecision = Literal["fp32", "bf16"]
"""Precisions of torch engines, set in the same graph as TensorRT's."""
