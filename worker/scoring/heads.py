"""Computes scores from features in NumPy: gated fusion and the template head."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from schemas import Scores
from worker.scoring.engine import PROMPT, Features
from worker.scoring.fusion import Fusion, softmax
from worker.scoring.manifest import ModelManifest
from worker.scoring.tensors import Array, TensorReader

EPSILON = np.float32(1e-12)


class Heads:
    """The heads of one model.

    Template head: the cosines of the fused features with five anchor embeddings, times a temperature, softmax; the
    score is the expectation over the score range (MST-CLIPIQA, arXiv 2606.16799). For a row with a prompt, the prompt
    head's scores are used: its correspondence, and its quality instead of the template head's. Thread-safe.
    """

    def __init__(self, manifest: ModelManifest, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Raises ManifestError for a tensor that is missing, left over, not finite, or of the wrong dtype or shape."""
        self._coarse = manifest.tower(manifest.heads.coarse)
        self._fine = manifest.tower(manifest.heads.fine)
        reader = TensorReader(f"{manifest.name}: {manifest.heads.path}", dict(tensors))
        self._fusion = Fusion.read(reader, "gff.", self._coarse.features, self._fine.features)
        anchors = reader.array("head.anchors", (len(manifest.anchors), self._fusion.features))
        self._anchors = anchors / np.maximum(np.linalg.norm(anchors, axis=1, keepdims=True), EPSILON)
        self._temperature = reader.array("head.temperature", (1,))[0]
        reader.finish()
        self._range = manifest.score_range
        self._values = np.linspace(*manifest.score_range, len(manifest.anchors), dtype=np.float32)
        self._prompt_scores = manifest.prompt.scores if manifest.prompt is not None else ()

    def score(self, features: Features) -> list[Scores]:
        """The scores of a batch, in order.

        `features`: tower name → [batch, features], float32 or float16, and under `PROMPT` the prompt head's scores.
        Raises ValueError for a tower that is missing, a wrong shape, or a value that is not finite.
        """
        coarse = _checked(features, self._coarse.name, self._coarse.features)
        fine = _checked(features, self._fine.name, self._fine.features)
        if len(coarse) != len(fine):
            raise ValueError(f"{len(coarse)} rows of {self._coarse.name} but {len(fine)} of {self._fine.name}")
        fused, gate = self._fusion(coarse, fine)
        fused /= np.maximum(np.linalg.norm(fused, axis=1, keepdims=True), EPSILON)
        anchors = softmax(self._temperature * (fused @ self._anchors.T))
        quality = np.clip(anchors @ self._values, self._values[0], self._values[-1])
        scores = [
            Scores(quality=float(score), anchors=tuple(map(float, row)), coarse_share=float(share))
            for score, row, share in zip(quality, anchors, gate.mean(axis=1), strict=True)
        ]
        if PROMPT not in features or not self._prompt_scores:
            return scores
        prompted = features[PROMPT]
        if prompted.shape != (len(scores), len(self._prompt_scores)):
            raise ValueError(
                f"the prompt head's scores have shape {list(prompted.shape)}, expected "
                f"{[len(scores), len(self._prompt_scores)]}"
            )
        return [self._with_prompt(each, row) for each, row in zip(scores, prompted, strict=True)]

    def _with_prompt(self, scores: Scores, prompted: Array) -> Scores:
        """Combines a row's scores with the prompt head's. NaN: not scored by the prompt head."""
        found: dict[str, float] = {
            name: float(np.clip(value, *self._range))
            for name, value in zip(self._prompt_scores, prompted, strict=True)
            if not np.isnan(value)
        }
        if "quality" in found:  # the quality does not come from the anchors or their fusion
            return Scores(quality=found["quality"], correspondence=found.get("correspondence"))
        return scores.model_copy(update=found)


def _checked(features: Features, name: str, size: int) -> Array:
    if name not in features:
        raise ValueError(f"no features of tower {name!r}; got {sorted(features)}")
    rows = np.asarray(features[name], dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise ValueError(f"features of tower {name!r} have shape {list(rows.shape)}, expected [batch, {size}]")
    if not np.isfinite(rows).all():
        raise ValueError(f"features of tower {name!r} hold values that are not finite")
    return rows
