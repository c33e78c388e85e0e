"""Where scores are looked up before an image is fetched, and kept after."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas import S3Reference
from worker.cache.values import CachedScore, ScoreKey


class ScoreStore(Protocol):
    """As `worker.cache.score_cache.ScoreCache`, which explains each method. Safe for several threads."""

    def key(self, content_hash: str, prompt: str | None) -> ScoreKey: ...

    def content_hashes(self, references: Sequence[S3Reference]) -> list[str | None]: ...

    def scores(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]: ...

    def features(self, keys: Sequence[ScoreKey]) -> list[Mapping[str, bytes] | None]: ...

    def get(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]: ...

    def put(self, scores: Mapping[ScoreKey, CachedScore], aliases: Mapping[S3Reference, str]) -> None: ...


class NoScoreStore:
    """Knows nothing and keeps nothing."""

    def key(self, content_hash: str, prompt: str | None) -> ScoreKey:
        return ScoreKey(content_hash, prompt or None)

    def content_hashes(self, references: Sequence[S3Reference]) -> list[str | None]:
        return [None] * len(references)

    def scores(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]:
        return [None] * len(keys)

    def features(self, keys: Sequence[ScoreKey]) -> list[Mapping[str, bytes] | None]:
        return [None] * len(keys)

    def get(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]:
        return [None] * len(keys)

    def put(self, scores: Mapping[ScoreKey, CachedScore], aliases: Mapping[S3Reference, str]) -> None:
        """Keeps nothing."""
