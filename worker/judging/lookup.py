"""Where scores are looked up before an image is fetched, and kept after."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from schemas import S3Reference
from worker.cache.values import CachedScore, ScoreKey
from worker.judging.job import Job

J = TypeVar("J", bound=Job)


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


def split_known(jobs: Sequence[J], cache: ScoreStore) -> tuple[list[tuple[J, CachedScore]], Sequence[J]]:
    """Splits the jobs: those whose object was scored before, with its scores and unfetched; the others."""
    objects = [(job, job.event.image) for job in jobs if isinstance(job.event.image, S3Reference)]
    if not objects:
        return [], jobs
    hashes = cache.content_hashes([image for _, image in objects])
    hashed: list[J] = []
    for (job, _), content_hash in zip(objects, hashes, strict=True):
        if content_hash is not None and job.event.sha256 in (None, content_hash.removeprefix("sha256:")):
            job.fetched(content_hash)
            hashed.append(job)
    scores = cache.scores([cache.key(job.content_hash or "", job.event.prompt) for job in hashed])
    known = [(job, found) for job, found in zip(hashed, scores, strict=True) if found is not None]
    served = {job for job, _ in known}
    return known, [job for job in jobs if job not in served]
