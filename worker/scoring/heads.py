"""From features to scores, in NumPy: gated fusion and the template head (design.md section 5)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import Scores
from worker.scoring.engine import Features
from worker.scoring.manifest import ManifestError, ModelManifest

Array = NDArray[np.float32]

EPSILON = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x Wᵀ + b, as torch.nn.Linear keeps it: weight [out, in], bias [out]."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T + self.bias
        return y


class Heads:
    """The heads of one model.

    Gated fusion: g = sigmoid(W_g ReLU(W_h [c; f])), z = g ⊙ W_c c + (1 - g) ⊙ W_f f. Template head: the cosines of z
    with five anchor embeddings, times a temperature, softmax; the score is the expectation over the score range
    (MST-CLIPIQA, arXiv 2606.16799). Stateless, so safe to call from several threads.
    """

    def __init__(self, manifest: ModelManifest, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Raises ManifestError for a tensor that is missing, left over, not finite, or of the wrong dtype or shape."""
        self._coarse = manifest.tower(manifest.heads.coarse)
        self._fine = manifest.tower(manifest.heads.fine)
        reader = _Reader(f"{manifest.name}: {manifest.heads.path}", dict(tensors))
        streams = self._coarse.features + self._fine.features
        self._hidden = reader.linear("gff.W_h", None, streams)
        self._gate = reader.linear("gff.W_g", None, len(self._hidden.bias))
        fused = len(self._gate.bias)
        self._from_coarse = reader.linear("gff.W_c", fused, self._coarse.features)
        self._from_fine = reader.linear("gff.W_f", fused, self._fine.features)
        anchors = reader.array("head.anchors", (len(manifest.anchors), fused))
        self._anchors = anchors / np.maximum(np.linalg.norm(anchors, axis=1, keepdims=True), EPSILON)
        self._temperature = reader.array("head.temperature", (1,))[0]
        reader.finish()
        self._values = np.linspace(*manifest.score_range, len(manifest.anchors), dtype=np.float32)

    def score(self, features: Features) -> list[Scores]:
        """Scores of a batch, in its order.

        `features`: tower name → [batch, features], float32 or float16. Raises ValueError for a tower that is missing,
        a wrong shape, or a value that is not finite.
        """
        coarse = _checked(features, self._coarse.name, self._coarse.features)
        fine = _checked(features, self._fine.name, self._fine.features)
        if len(coarse) != len(fine):
            raise ValueError(f"{len(coarse)} rows of {self._coarse.name} but {len(fine)} of {self._fine.name}")
        gate = _sigmoid(self._gate(np.maximum(self._hidden(np.concatenate((coarse, fine), axis=1)), 0)))
        fused = gate * self._from_coarse(coarse) + (1 - gate) * self._from_fine(fine)
        fused /= np.maximum(np.linalg.norm(fused, axis=1, keepdims=True), EPSILON)
        anchors = _softmax(self._temperature * (fused @ self._anchors.T))
        quality = np.clip(anchors @ self._values, self._values[0], self._values[-1])
        return [
            Scores(quality=float(score), anchors=tuple(map(float, row)), coarse_share=float(share))
            for score, row, share in zip(quality, anchors, gate.mean(axis=1), strict=True)
        ]


class _Reader:
    """Takes tensors out of a heads file, checking each."""

    def __init__(self, where: str, tensors: dict[str, NDArray[np.generic]]) -> None:
        self._where = where
        self._tensors = tensors

    def array(self, name: str, shape: tuple[int | None, ...]) -> Array:
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
        weight = self.array(f"{name}.weight", (size_out, size_in))
        return Linear(weight, self.array(f"{name}.bias", (weight.shape[0],)))

    def finish(self) -> None:
        if self._tensors:
            raise ManifestError(f"{self._where}: unknown tensors {sorted(self._tensors)}; is the head type right?")


def _checked(features: Features, name: str, size: int) -> Array:
    if name not in features:
        raise ValueError(f"no features of tower {name!r}; got {sorted(features)}")
    rows = np.asarray(features[name], dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise ValueError(f"features of tower {name!r} have shape {list(rows.shape)}, expected [batch, {size}]")
    if not np.isfinite(rows).all():
        raise ValueError(f"features of tower {name!r} hold values that are not finite")
    return rows


def _sigmoid(x: Array) -> Array:
    # tanh does not overflow where exp would
    y: Array = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))
    return y


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y: Array = e / e.sum(axis=1, keepdims=True)
    return y
