"""The cache's values and keys. Needs no Redis client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas import Scores


@dataclass(frozen=True, slots=True)
class CachedScore:
    """An image's scores, and the features that they were computed from (float16 little-endian, by tower)."""

    scores: Scores
    features: Mapping[str, bytes]


class ScoreKey(NamedTuple):
    """What a score depends on, beside the model: the image's bytes and, for a model that judges prompts, the prompt."""

    content_hash: str
    prompt_hash: str | None
