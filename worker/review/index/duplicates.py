"""Finds near duplicates among the items that wait.

Features are compared by cosine. Random hyperplanes (Charikar 2002) put each vector into TABLES buckets of BITS bits,
and only those that share a bucket are compared: vectors at a cosine of 0.99 share one with a probability of 0.99, at
0.975 of 0.94, those of unrelated images hardly ever. Equal files share a bucket of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from schemas import ReviewItem
from worker.review.index import keys

TABLES: Final = 8
BITS: Final = 16
MAX_COMPARED: Final = 500
"""Items of one's buckets that are compared at most; a flooded bucket must not stop the projector."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an item is compared by: `buckets` to look in, the content hash, and the vector, where it has them."""

    buckets: tuple[str, ...]
    content_hash: str | None
    vector: Vector | None


def fingerprint(item: ReviewItem) -> Fingerprint:
    """Items of other tenants or queues are never judged together, nor, where the model judged the fit of image and
    prompt, those of other prompts."""
    scores = item.scores
    prompt = item.prompt or "" if scores is not None and scores.correspondence is not None else ""
    scope = "\0".join((item.tenant, item.queue, item.model, prompt))
    vector = unit_vector(item.features)
    names = [] if item.content_hash is None else [item.content_hash]
    if vector is not None:
        signs = (vector @ _planes(len(vector))).reshape(TABLES, BITS) > 0
        names += [f"{table}:{np.packbits(bits).tobytes().hex()}" for table, bits in enumerate(signs)]
    return Fingerprint(tuple(f"{scope}\0{name}" for name in names), item.content_hash, vector)


def unit_vector(features: Mapping[str, bytes]) -> Vector | None:
    """The towers' embeddings, each scaled to length 1, side by side, at length 1; None without or for broken ones."""
    parts = []
    for name in sorted(features):
        if len(features[name]) % 2:
            return None
        part = np.frombuffer(features[name], "<f2").astype(np.float32)
        length = float(np.linalg.norm(part))
        if not length > 0 or not np.isfinite(length):
            return None
        parts.append(part / length)
    if not parts:
        return None
    vector: Vector = (np.concatenate(parts) / np.sqrt(len(parts))).astype(np.float32)
    return vector


class Duplicates:
    """Says to which cluster an item belongs. Safe for many threads; two that arrive at the same moment at different
    projectors may miss each other."""

    def __init__(self, client: redis.Redis, cosine: float) -> None:
        self._redis = client
        self._cosine = cosine

    def join(self, item_id: str, mark: Fingerprint) -> str:
        """The cluster of the nearest waiting item that is near enough, else the item's own; it can be found from now
        on."""
        cluster = self._nearest(item_id, mark) or item_id
        fields: dict[Any, Any] = {"cluster": cluster, "buckets": "\n".join(mark.buckets)}
        if mark.content_hash is not None:
            fields["content_hash"] = mark.content_hash
        if mark.vector is not None:
            fields["vector"] = mark.vector.astype("<f2").tobytes()
        with self._redis.pipeline() as pipeline:
            pipeline.hset(keys.near(item_id), mapping=fields)
            for bucket in mark.buckets:
                pipeline.sadd(keys.bucket(bucket), item_id)
            pipeline.execute()
        return cluster

    def _nearest(self, item_id: str, mark: Fingerprint) -> str | None:
        found: dict[str, None] = {}
        with self._redis.pipeline(transaction=False) as pipeline:
            for bucket in mark.buckets:
                pipeline.srandmember(keys.bucket(bucket), MAX_COMPARED)
            for members in pipeline.execute():
                found.update(dict.fromkeys(member.decode() for member in members))
            found.pop(item_id, None)
            candidates = list(found)[:MAX_COMPARED]
            for candidate in candidates:
                pipeline.hmget(keys.near(candidate), "cluster", "content_hash", "vector")
            rows = pipeline.execute() if candidates else []
        best, nearest = None, self._cosine
        for cluster, content_hash, vector in rows:
            if cluster is None:
                continue
            if mark.content_hash is not None and content_hash == mark.content_hash.encode():
                return str(cluster.decode())
            if mark.vector is None or vector is None or len(vector) != 2 * len(mark.vector):
                continue
            cosine = float(mark.vector @ np.frombuffer(vector, "<f2").astype(np.float32))
            if cosine >= nearest and self._cosine < 1:
                best, nearest = cluster.decode(), cosine
        return best


@cache
def _planes(size: int) -> Vector:
    """The same hyperplanes in every process."""
    return np.random.default_rng(20260101).standard_normal((size, TABLES * BITS)).astype(np.float32)
