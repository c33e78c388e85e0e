"""What engines compute in, by what builds them. Apart from the builders, which load onnx, torch or NNCF."""

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16"]
"""Of TensorRT's engines, decided in the graph."""

Quantised = Literal["int8", "fp8"]
"""What products may be quantised to, by Q/DQ nodes in the graph."""

CpuPrecision = Literal["fp32", "bf16", "int8"]
"""Of OpenVINO's."""

TorchPrecision = Literal["fp32", "bf16"]
"""Of torch's, decided in the same graph as TensorRT's."""
