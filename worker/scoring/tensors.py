"""Reads heads out of safetensors, each tensor checked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.scoring.manifest import ManifestError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x Wᵀ + b, as torch.nn.Linear keeps it: weight [out, in], bias [out]."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T + self.bias
        return y


class TensorReader:
    """Takes tensors out of a file of heads. Raises ManifestError for one that is missing, left over, not finite, or of
    the wrong dtype or shape; `where` names the file."""

    def __init__(self, where: str, tensors: dict[str, NDArray[np.generic]]) -> None:
        self._where = where
        self._tensors = tensors

    def array(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The tensor of that name; None in its shape stands for any size."""
        try:
            tensor = self._tensors.pop(name)
        except KeyError:
            raise ManifestError(f"{self._where}: no tensor {name}; export the heads again") from None
        fits = len(tensor.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype != np.float32 or not fits:
            want = [size or "any" for size in shape]
            raise ManifestError(
                f"{self._where}: {name} is {tensor.dtype}{list(tensor.shape)}, expected float32{want}; "
                "do the towers in the manifest belong to these heads?"
            )
        if not np.isfinite(tensor).all():
            raise ManifestError(f"{self._where}: {name} holds values that are not finite; train or export it again")
        return tensor.astype(np.float32)

    def linear(self, name: str, size_out: int | None, size_in: int) -> Linear:
        """The layer of that name."""
        weight = self.array(f"{name}.weight", (size_out, size_in))
        return Linear(weight, self.array(f"{name}.bias", (weight.shape[0],)))

    def finish(self) -> None:
        """Nothing may be left."""
        if self._tensors:
            raise ManifestError(f"{self._where}: unknown tensors {sorted(self._tensors)}; is the head type right?")
