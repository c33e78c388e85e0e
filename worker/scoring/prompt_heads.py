"""The prompt head in NumPy: scores an image with its prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from worker.scoring.engine import Features
from worker.scoring.fusion import Fusion, softmax
from worker.scoring.manifest import ManifestError, ModelManifest
from worker.scoring.tensors import Array, Linear, TensorReader

ATTENTION_HEADS = 8

LOWEST = np.float32(-1e30)


@dataclass(frozen=True, slots=True)
class _PromptHead:
    """w_o(GELU(W_1 z') + W_2 z') with z' = z + alpha attention(z → tokens) and z the fused features (MST-CLIPIQA, arXiv
    2606.16799).

    There is one query per prompt, so keys and values are not computed: the query is projected into the tokens' space,
    q·(W_k t) = (W_kᵀ q)·t, and the weighted mean of the tokens is projected back. The result is the same with a
    twentieth of the work. The keys' bias is the same for all tokens and cancels in the softmax.
    """

    fusion: Fusion
    query: Linear
    key: Array
    value: Linear
    out: Linear
    alpha: Array
    first: Linear
    second: Linear
    last: Linear

    @classmethod
    def read(cls, reader: TensorReader, prefix: str, coarse: int, fine: int, tokens: int) -> Self:
        """Reads the head below `prefix`. `tokens`: features of each token. Raises ManifestError."""
        fusion = Fusion.read(reader, f"{prefix}gff.", coarse, fine)
        fused = fusion.features
        query = reader.linear(f"{prefix}attention.query", fused, fused)
        key = reader.linear(f"{prefix}attention.key", fused, tokens)
        value = reader.linear(f"{prefix}attention.value", fused, tokens)
        out = reader.linear(f"{prefix}attention.out", fused, fused)
        first = reader.linear(f"{prefix}W_1", None, fused)
        second = reader.linear(f"{prefix}W_2", len(first.bias), fused)
        last = reader.linear(f"{prefix}w_o", 1, len(first.bias))
        if fused % ATTENTION_HEADS:
            raise ManifestError(
                f"{prefix}: {fused} fused features cannot be divided into {ATTENTION_HEADS} attention heads"
            )
        alpha = reader.array(f"{prefix}alpha", (1,))
        return cls(fusion, query, key.weight, value, out, alpha, first, second, last)

    def __call__(self, coarse: Array, fine: Array, tokens: Array, lengths: NDArray[np.intp]) -> Array:
        """[batch, features] of each stream, [batch, longest, token features], tokens of each prompt → [batch]."""
        fused, _ = self.fusion(coarse, fine)
        batch, width = fused.shape
        size = width // ATTENTION_HEADS
        query = self.query(fused).reshape(batch, ATTENTION_HEADS, size) / np.float32(np.sqrt(size))
        key = self.key.reshape(ATTENTION_HEADS, size, -1)
        # [heads, batch, size] @ [heads, size, token features]
        sought = np.matmul(query.transpose(1, 0, 2), key).transpose(1, 0, 2)
        likeness = np.matmul(sought, tokens.transpose(0, 2, 1))
        behind = np.arange(tokens.shape[1])[None] >= lengths[:, None]
        found = np.matmul(softmax(np.where(behind[:, None], LOWEST, likeness)), tokens)
        value = self.value.weight.reshape(ATTENTION_HEADS, size, -1)
        attended = np.matmul(found.transpose(1, 0, 2), value.transpose(0, 2, 1)).transpose(1, 0, 2)
        prompted = fused + self.alpha * self.out(attended.reshape(batch, width) + self.value.bias)
        score: Array = self.last(_gelu(self.first(prompted)) + self.second(prompted))[:, 0]
        return score


class PromptHeads:
    """A model's prompt heads, one for each score in its manifest. Thread-safe."""

    def __init__(self, manifest: ModelManifest, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Raises ManifestError for a tensor that is missing, unused, not finite, or has the wrong dtype or shape."""
        spec = manifest.prompt
        if spec is None or spec.heads is None:
            raise ManifestError(f"{manifest.name}: the manifest names no prompt head")
        self._coarse, self._fine = manifest.tower(manifest.heads.coarse), manifest.tower(manifest.heads.fine)
        reader = TensorReader(f"{manifest.name}: {spec.heads.path}", dict(tensors))
        self._heads = tuple(
            _PromptHead.read(reader, f"{score}.", self._coarse.features, self._fine.features, spec.features)
            for score in spec.scores
        )
        reader.finish()

    def score(self, features: Features, tokens: Array, lengths: NDArray[np.intp]) -> Array:
        """[batch, scores], in the manifest's order. `tokens`: the text tower's output, [batch, longest, features], of
        which each row has `lengths` tokens, at least one."""
        coarse, fine = features[self._coarse.name], features[self._fine.name]
        return np.stack([head(coarse, fine, tokens, lengths) for head in self._heads], axis=1)


def _gelu(x: Array) -> Array:
    y: Array = np.float32(0.5) * x * (1 + _erf(x / np.float32(np.sqrt(2))))
    return y


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: off by 1.5e-7 at most, as float32 itself."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    polynomial = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + np.float32(factor)) * t
    y: Array = np.sign(x) * (1 - polynomial * np.exp(-size * size))
    return y
