"""Token features of prompts, cached on disk by text tower and tokens."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from worker.model.evaluation.features import open_cache
from worker.scoring.engine import PROMPT, Features
from worker.scoring.model import PromptParts
from worker.scoring.openvino_engine import OpenVinoText
from worker.scoring.prompts import PromptScorer
from worker.scoring.tensors import Array
from worker.scoring.token_ids import lengths

BATCH = 16
ROWS = 256
"""Images per batch, each with its prompt's tokens."""


class TextCache:
    """One SQLite file for each text tower: token ids → features of the tokens, float32."""

    def __init__(self, folder: Path, prompt: PromptParts) -> None:
        self._width = prompt.spec.features
        self._file = open_cache(folder, f"text-{prompt.spec.text.sha256[:32]}.sqlite", "ids BLOB")

    def get(self, ids: bytes) -> Array | None:
        """[tokens, features]; None if they are not cached or are damaged."""
        found = self._file.execute("SELECT value FROM features WHERE ids = ?", (_key(ids),)).fetchone()
        if found is None or len(found[0]) != len(ids) * self._width:  # four bytes an id, and four a feature
            return None
        return np.frombuffer(found[0], "<f4").astype(np.float32).reshape(-1, self._width)

    def put(self, rows: Mapping[bytes, Array]) -> None:
        values = [(_key(ids), features.astype("<f4").tobytes()) for ids, features in rows.items()]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)

    def close(self) -> None:
        self._file.close()


def compute_text(
    prompt: PromptParts, texts: Sequence[str], cache: Path, advance: Callable[[], None] = lambda: None
) -> dict[str, Array]:
    """Text → the features of its tokens, [tokens, features], in float32, from the cache if possible. Raises EngineError
    if the text tower fails.
    """
    distinct = list(dict.fromkeys(texts))
    ids = prompt.tokenizer(distinct)
    keys = [row[:end].tobytes() for row, end in zip(ids, lengths(ids), strict=True)]
    with closing(TextCache(cache, prompt)) as known:
        rows = {key: features for key in set(keys) if (features := known.get(key)) is not None}
        for key in keys:
            if key in rows:
                advance()
        missing = list({key: row for row, key in enumerate(keys) if key not in rows}.items())
        if missing:
            with closing(OpenVinoText(prompt, precision="f32")) as tower:
                for start in range(0, len(missing), BATCH):
                    part = missing[start : start + BATCH]
                    features = tower.run(ids[[row for _, row in part]])
                    made = {key: one[: len(key) // 4] for (key, _), one in zip(part, features, strict=True)}
                    known.put(made)
                    rows |= made
                    for _ in made:
                        advance()
    return dict(zip(distinct, (rows[key] for key in keys), strict=True))


def judge_prompts(prompt: PromptParts, features: Features, prompts: Sequence[str], text: Mapping[str, Array]) -> Array:
    """The entry `PROMPT` of an engine's features: [images, scores], NaN if the prompt is empty."""
    if prompt.heads is None:
        raise ValueError("this model's prompt head is not trained")
    scorer = PromptScorer(prompt.heads, lambda texts: [text[each] for each in texts], len(prompt.spec.scores))
    return np.concatenate([scorer.score(*part) for part in _parts(features, prompts)])


def with_prompts(
    prompt: PromptParts, features: Features, prompts: Sequence[str], text: Mapping[str, Array]
) -> Features:
    """The features, and the prompt head's scores."""
    return {**features, PROMPT: judge_prompts(prompt, features, prompts, text)}


def _parts(features: Features, prompts: Sequence[str]) -> Iterator[tuple[Features, Sequence[str]]]:
    for start in range(0, len(prompts), ROWS):
        rows = slice(start, start + ROWS)
        yield {name: each[rows] for name, each in features.items()}, prompts[rows]


def _key(ids: bytes) -> bytes:
    return hashlib.sha256(ids).digest()
