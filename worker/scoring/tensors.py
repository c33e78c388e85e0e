"""Reads heads from safetensors and checks each tensor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.scoring.manifest import ManifestError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x Wᵀ + b, in torch.nn.Linear's layout: weight [out, in], bias [out]."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T + self.bias
        return y


class TensorReader:
    """Takes tensors from a file of heads. Raises ManifestError for a tensor that is missing, unused, not finite, or has
    the wrong dtype or shape. `where` names the file.
    """

    def __init__(self, where: str, tensors: dict[str, NDArray[np.generic]]) -> None:
        self._where = where
        self._tensors = tensors

    def array(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The tensor with that name. None in the shape allows any size."""
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
                "check that the manifest's towers belong to these heads"
            )
        if not np.isfinite(tensor).all():
            raise ManifestError(f"{self._where}: {name} has values that are not finite; train or export it again")
        return tensor.astype(np.float32)

    def linear(self, name: str, size_out: int | None, size_in: int) -> Linear:
        """The layer of that name."""
        weight = self.array(f"{name}.weight", (size_out, size_in))
        return Linear(weight, self.array(f"{name}.bias", (weight.shape[0],)))

    def finish(self) -> None:
        """Raises ManifestError if a tensor was not used."""
        if self._tensors:
            raise ManifestError(f"{self._where}: unknown tensors {sorted(self._tensors)}; is the head type right?")
