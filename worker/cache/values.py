"""The cache's values and keys. Needs no Redis client."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from schemas import Provenance, Scores

NO_FEATURES: Final[Mapping[str, bytes]] = MappingProxyType({})


class CachedScore(NamedTuple):
    """An image's scores, and what else is known of it.

    `features`: what the scores were computed from (float16 little-endian, by tower); empty where only scores were
    looked up. `provenance`: None where it is not read.
    """

    scores: Scores
    features: Mapping[str, bytes]
    provenance: Provenance | None = None


class ScoreKey(NamedTuple):
    """What a score depends on, beside the model: the image's bytes and, for a model that judges prompts, the prompt."""

    content_hash: str
    prompt_hash: str | None
