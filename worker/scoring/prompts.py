"""Scores images with their prompts, for every engine. Engines differ only in how they run the text tower."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from worker.scoring.engine import BatchFailed, Features, Prompts
from worker.scoring.prompt_heads import PromptHeads
from worker.scoring.tensors import Array
from worker.scoring.token_ids import TokenIds, Tokenize, lengths

CACHE_BYTES = 128 * 1024 * 1024
"""Bytes of cached token features: 850 prompts of 77 tokens of ViT-B's text tower, or 3,000 of usual length."""

RunText = Callable[[TokenIds], Array]
"""The text tower: [texts, context] → [texts, context, features]."""


class TextFeatures:
    """Runs the text tower and caches recent results: several images often have the same prompt, and the tower costs as
    much as a coarse image. Thread-safe.
    """

    def __init__(self, tokenize: Tokenize, run: RunText, *, largest: int, cache_bytes: int = CACHE_BYTES) -> None:
        """`largest`: how many texts `run` takes per call."""
        self._tokenize = tokenize
        self._run = run
        self._largest = largest
        self._limit = cache_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Array] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> list[Array]:
        """The token features of each text, [its tokens, features]. Raises BatchFailed if the tower fails."""
        ids = self._tokenize(texts)
        ends = lengths(ids)
        keys = [row[:end].tobytes() for row, end in zip(ids, ends, strict=True)]
        found = self._look_up(keys)
        missing = list({key: row for row, key in enumerate(keys) if key not in found}.values())
        for start in range(0, len(missing), self._largest):
            rows = missing[start : start + self._largest]
            for row, features in zip(rows, self._run(ids[rows]), strict=True):
                if not np.isfinite(features[: ends[row]]).all():
                    raise BatchFailed("the text tower gave values that are not finite")
                found[keys[row]] = self._keep(keys[row], features[: ends[row]].copy())
        return [found[key] for key in keys]

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        found = {}
        with self._lock:
            for key in keys:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    found[key] = self._kept[key]
        return found

    def _keep(self, key: bytes, features: Array) -> Array:
        with self._lock:
            if key not in self._kept and features.nbytes <= self._limit:
                self._kept[key] = features
                self._held += features.nbytes
                while self._held > self._limit:
                    self._held -= self._kept.popitem(last=False)[1].nbytes
        return features


class PromptScorer:
    """The prompt head's scores of a batch, for the rows with a prompt."""

    def __init__(self, heads: PromptHeads, text: Callable[[Sequence[str]], list[Array]], scores: int) -> None:
        """`text`: computes token features of prompts, such as TextFeatures. `scores`: the number of scores of the
        heads.
        """
        self._heads = heads
        self._text = text
        self._scores = scores

    def score(self, features: Features, prompts: Prompts) -> Array:
        """[batch, scores], NaN in rows without a prompt. An empty prompt counts as none. Raises BatchFailed if the
        numbers of prompts and rows differ, the text tower fails, or a score is not finite.
        """
        batch = len(next(iter(features.values())))
        if len(prompts) != batch:
            raise BatchFailed(f"{len(prompts)} prompts for {batch} images; give a prompt or None for each")
        scores = np.full((batch, self._scores), np.nan, np.float32)
        rows = [row for row, prompt in enumerate(prompts) if prompt]
        if not rows:
            return scores
        texts = self._text([prompt for prompt in prompts if prompt])
        ends = np.array([len(text) for text in texts])
        tokens = np.zeros((len(texts), ends.max(), texts[0].shape[1]), np.float32)
        for place, text in zip(tokens, texts, strict=True):
            place[: len(text)] = text
        scores[rows] = self._heads.score({name: each[rows] for name, each in features.items()}, tokens, ends)
        if not np.isfinite(scores[rows]).all():
            raise BatchFailed("the prompt head gave values that are not finite")
        return scores
