"""What the cache holds of an image, and under which key. Needs no Redis client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas import Scores


@dataclass(frozen=True, slots=True)
class CachedScore:
    """What is known of an image: its scores, and the features they came from (float16 little-endian, by tower)."""

    scores: Scores
    features: Mapping[str, bytes]


class ScoreKey(NamedTuple):
    """What a score depends on, beside the model: the image's bytes and, for a model that judges prompts, the prompt."""

    content_hash: str
    prompt_hash: str | None
