"""Caches scores in Redis. Without Redis Sluice is slower, and its verdicts are the same.

Scores and features have separate keys: features are a hundred times as large and are not needed for images that pass,
which are most.
"""

import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import redis

from schemas import S3Reference
from worker.cache.client import CacheClient
from worker.cache.codec import (
    CorruptValue,
    decode_features,
    decode_scores,
    encode_features,
    encode_scores,
    seal,
    unseal,
)
from worker.cache.outage import Outage
from worker.cache.recent import RecentValues
from worker.cache.values import NO_FEATURES, CachedScore, ScoreKey
from worker.telemetry.metrics import CacheKind, Metrics

_T = TypeVar("_T")
_CONTENT_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class ScoreCache:
    """Scores by content, and content hashes by S3 reference (an alias saves the fetch). Thread-safe.

    No method raises for a failure of Redis: what cannot be read is a miss. Hashes and scores that Redis has returned
    are answered from memory for up to a minute: they do not change under their key. With `max_entries` the cache itself
    removes the oldest of what it has put, for a Redis that does not evict by itself (the embedded one).
    """

    def __init__(
        self,
        client: CacheClient,
        *,
        model_digest: str,
        ttl_seconds: int,
        reads_prompts: bool,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        max_entries: int | None = None,
        provenance: str = "",
    ) -> None:
        """`reads_prompts`: whether the model judges prompts; if it does not, an image has one score. `provenance`
        identifies the reader of provenance: what another one read is not found.
        """
        self._client = client
        self._model_digest = model_digest
        self._reads_prompts = reads_prompts
        self._ttl_seconds = ttl_seconds
        self._metrics = metrics
        self._max_entries = max_entries
        self._provenance = provenance
        self._entries: deque[str] = deque()
        self._entries_lock = threading.Lock()
        self._recent_hashes: RecentValues[str] = RecentValues(clock)
        self._recent_scores: RecentValues[CachedScore] = RecentValues(clock)
        self._outage = Outage("cache", clock)
        self._refusal = Outage("cache_writes", clock)
        metrics.cache_up.set_function(lambda: not self._outage.is_on)

    def key(self, content_hash: str, prompt: str | None) -> ScoreKey:
        """The key of an image's score."""
        if not prompt or not self._reads_prompts:
            return ScoreKey(content_hash, None)
        return ScoreKey(content_hash, hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()[:32])

    def content_hashes(self, references: Sequence[S3Reference]) -> list[str | None]:
        """The content hash of each reference, if known. References without a version or an ETag are not cached, because
        their content may change.
        """
        keys = [_alias_key(reference) for reference in references]
        return self._look_up("alias", keys, _decode_hash, self._recent_hashes)

    def scores(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]:
        """The cached scores of each key for this model, without features."""
        return self._look_up("score", [self._key("score", key) for key in keys], _decode_score, self._recent_scores)

    def features(self, keys: Sequence[ScoreKey]) -> list[Mapping[str, bytes] | None]:
        """The features behind the scores of each key; Redis may have evicted them and kept the scores."""
        return self._look_up("features", [self._key("features", key) for key in keys], decode_features)

    def get(self, keys: Sequence[ScoreKey]) -> list[CachedScore | None]:
        """The scores of each key with their features, if both are cached."""
        scores = dict(zip(keys, self.scores(keys), strict=True))
        known = [key for key, found in scores.items() if found is not None]
        features = dict(zip(known, self.features(known), strict=True))
        return [_whole(scores[key], features.get(key)) for key in keys]

    def put(self, scores: Mapping[ScoreKey, CachedScore], aliases: Mapping[S3Reference, str]) -> None:
        """Stores scores and aliases (reference → content hash). Aliases of references without a version or an ETag are
        skipped.
        """
        values: dict[str, bytes] = {}
        for key, score in scores.items():
            values[self._key("features", key)] = encode_features(score.features)
            values[self._key("score", key)] = encode_scores(score.scores, score.provenance)
        for reference, content_hash in aliases.items():
            if (alias := _alias_key(reference)) is not None:
                values[alias] = seal(content_hash.encode())
        if not values or self._outage.is_on or not self._refusal.lets_through():
            return
        try:
            self._write(values)
        except redis.ResponseError as error:  # it answers, but takes nothing: memory full, a read-only replica
            self._refusal.failed(error)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong with a cache, work goes on without it
            self._outage.failed(error)
        else:
            self._refusal.succeeded()

    def _look_up(
        self,
        kind: CacheKind,
        keys: Sequence[str | None],
        decode: Callable[[bytes], _T],
        recent: RecentValues[_T] | None = None,
    ) -> list[_T | None]:
        if recent is None:
            values = self._read([key for key in keys if key is not None])
            found = [_decoded(values.get(key), decode) if key is not None else None for key in keys]
        else:
            recent.turn()
            found = [recent.get(key) if key is not None else None for key in keys]
            if None in found:
                self._read_missing(keys, found, decode, recent)
        hits = sum(value is not None for value in found)
        self._metrics.cache_requests.labels(kind, "hit").inc(hits)
        self._metrics.cache_requests.labels(kind, "miss").inc(len(found) - hits)
        return found

    def _read_missing(
        self,
        keys: Sequence[str | None],
        found: list[_T | None],
        decode: Callable[[bytes], _T],
        recent: RecentValues[_T],
    ) -> None:
        """Fills in what Redis has of the keys that nothing was found for."""
        missing = [(at, key) for at, key in enumerate(keys) if key is not None and found[at] is None]
        values = self._read([key for _, key in missing])
        for at, key in missing:
            value = found[at] = _decoded(values.get(key), decode)
            if value is not None:
                recent.put(key, value)

    def _read(self, keys: Sequence[str]) -> Mapping[str, object]:
        if not keys or not self._outage.lets_through():
            return {}
        try:
            values = dict(zip(keys, self._client.mget(keys), strict=True))
        except Exception as error:  # noqa: BLE001  # as above
            self._outage.failed(error)
            return {}
        self._outage.succeeded()
        return values

    def _write(self, values: Mapping[str, bytes]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(key, value, ex=self._ttl_seconds)
            for key in self._overflow(values):
                pipeline.delete(key)
            pipeline.execute()

    def _overflow(self, added: Mapping[str, bytes]) -> list[str]:
        if self._max_entries is None:
            return []
        with self._entries_lock:
            self._entries.extend(added)
            return [self._entries.popleft() for _ in range(len(self._entries) - self._max_entries)]

    def _key(self, kind: CacheKind, key: ScoreKey) -> str:
        # The parts are digests, of one length each, and the last one a name that has no colon.
        reader = f":{self._provenance}" if kind == "score" and self._provenance else ""
        return f"sluice:{kind}:{self._model_digest}:{key.content_hash}:{key.prompt_hash or ''}{reader}"


def _whole(score: CachedScore | None, features: Mapping[str, bytes] | None) -> CachedScore | None:
    return None if score is None or features is None else score._replace(features=features)


def _decode_score(value: bytes) -> CachedScore:
    scores, provenance = decode_scores(value)
    return CachedScore(scores, NO_FEATURES, provenance)


def _alias_key(reference: S3Reference) -> str | None:
    # "null" is the version of an object that was written without versioning: it is overwritten in place
    version = "" if reference.version_id in (None, "null") else reference.version_id
    if not version and reference.etag is None:
        return None
    bucket, key = reference.bucket, reference.key
    # With the lengths, so that no two references read the same.
    named = f"{len(bucket)},{len(key)},{len(version or '')};{bucket}{key}{version or ''}{reference.etag or ''}"
    return f"sluice:alias:{hashlib.sha256(named.encode(errors='surrogatepass')).hexdigest()}"


def _decode_hash(value: bytes) -> str:
    content_hash = unseal(value).decode("ascii", errors="replace")
    if not _CONTENT_HASH.fullmatch(content_hash):
        raise CorruptValue("not a content hash")
    return content_hash


def _decoded(value: object, decode: Callable[[bytes], _T]) -> _T | None:
    if not isinstance(value, bytes):
        return None
    try:
        return decode(value)
    except CorruptValue:
        return None
