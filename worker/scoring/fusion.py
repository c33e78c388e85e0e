"""Gated fusion of two streams, in NumPy (design.md section 5)."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from worker.scoring.tensors import Array, Linear, TensorReader


@dataclass(frozen=True, slots=True)
class Fusion:
    """z = g ⊙ W_c c + (1 - g) ⊙ W_f f with g = sigmoid(W_g ReLU(W_h [c; f])) (MST-CLIPIQA, arXiv 2606.16799)."""

    hidden: Linear
    gate: Linear
    from_coarse: Linear
    from_fine: Linear

    @classmethod
    def read(cls, reader: TensorReader, prefix: str, coarse: int, fine: int) -> Self:
        """Reads the fusion from the tensors below `prefix`. `coarse`, `fine`: features of each stream. Raises
        ManifestError.
        """
        hidden = reader.linear(f"{prefix}W_h", None, coarse + fine)
        gate = reader.linear(f"{prefix}W_g", None, len(hidden.bias))
        fused = len(gate.bias)
        from_coarse = reader.linear(f"{prefix}W_c", fused, coarse)
        return cls(hidden, gate, from_coarse, reader.linear(f"{prefix}W_f", fused, fine))

    @property
    def features(self) -> int:
        """The number of fused features."""
        return len(self.gate.bias)

    def __call__(self, coarse: Array, fine: Array) -> tuple[Array, Array]:
        """[batch, coarse], [batch, fine] → the fused features and the gate, [batch, features] each."""
        gate = _sigmoid(self.gate(np.maximum(self.hidden(np.concatenate((coarse, fine), axis=1)), 0)))
        fused = gate * self.from_coarse(coarse) + (1 - gate) * self.from_fine(fine)
        return fused, gate


def softmax(x: Array) -> Array:
    """Along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def _sigmoid(x: Array) -> Array:
    # tanh does not overflow, exp would
    y: Array = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))
    return y
