"""What near duplicates are found by.

Each item's features are projected onto random directions (Johnson and Lindenstrauss 1984). The signs of the projections
put the item into TABLES buckets of BITS bits (Charikar 2002): vectors at a cosine of 0.99 share one of them with a
probability of 0.998, at 0.975 of 0.955, those of unrelated images hardly ever. The item that came last to each bucket
is compared; the projections, kept as one byte each, give the cosine to within 0.003. Equal files share a bucket of
their own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import ReviewItem

TABLES: Final = 12
BITS: Final = 20
_DIRECTIONS: Final = TABLES * BITS
_STEP: Final = 0.3 / 127
"""Of a projection of a unit vector, whose standard deviation is 0.065."""
_SPREAD: Final = 0x9E3779B97F4A7C15
"""The golden ratio in 64 bits: an odd factor that spreads numbers over all of them (Knuth, TAOCP 6.4)."""

Vector = NDArray[np.float32]
_Shape = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an item is compared by: numbers of the buckets to look in, and its projections, where it has features."""

    buckets: tuple[int, ...]
    sketch: bytes | None


def fingerprints(items: Sequence[ReviewItem]) -> list[Fingerprint]:
    """Items of other tenants or queues are never judged together, nor, where the model judged the fit of image and
    prompt, those of other prompts."""
    sketches: list[bytes | None] = [None] * len(items)
    for places, vectors in _by_shape(items):
        projections = vectors @ _directions(vectors.shape[1])
        signs = projections > 0
        projections /= np.linalg.norm(projections, axis=1, keepdims=True)
        quantised = np.clip(np.rint(projections / _STEP), -127, 127).astype(np.int8)
        quantised[signs & (quantised == 0)] = 1  # so that the buckets can be had from the sketch
        for row, place in enumerate(places):
            sketches[place] = quantised[row].tobytes()
    return fingerprints_of(items, sketches)


def fingerprints_of(items: Sequence[ReviewItem], sketches: Sequence[bytes | None]) -> list[Fingerprint]:
    """The fingerprints of items whose sketches are known."""
    scopes = [_number(_scope(item)) for item in items]
    buckets = [
        [] if item.content_hash is None else [_number(str(scope), item.content_hash)]
        for scope, item in zip(scopes, items, strict=True)
    ]
    places = [place for place, sketch in enumerate(sketches) if sketch is not None and len(sketch) == _DIRECTIONS]
    if places:
        signs = np.frombuffer(b"".join(sketches[p] or b"" for p in places), np.int8).reshape(len(places), -1) > 0
        numbers = (_codes(signs) ^ np.array([scopes[p] for p in places], np.uint64)[:, None]) * np.uint64(_SPREAD)
        for place, theirs in zip(places, (numbers >> np.uint64(1)).tolist(), strict=True):
            buckets[place] += theirs
    return [Fingerprint(tuple(numbers), sketch) for numbers, sketch in zip(buckets, sketches, strict=True)]


def cosine(one: bytes, other: bytes) -> float:
    """Of two sketches; -1 when they are of different models."""
    if len(one) != len(other):
        return -1.0
    a, b = (np.frombuffer(sketch, np.int8).astype(np.float32) for sketch in (one, other))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def unit_vector(features: Mapping[str, bytes]) -> Vector | None:
    """The towers' embeddings, each scaled to length 1, side by side, at length 1; None without or for broken ones."""
    shape = _shape(features)
    if shape is None:
        return None
    vectors, is_sound = _unit_vectors([features], shape)
    return vectors[0] if is_sound[0] else None


def _by_shape(items: Sequence[ReviewItem]) -> Iterator[tuple[list[int], Vector]]:
    """Items whose features have the same towers and sizes: their places, and their unit vectors. Broken features are
    left out."""
    groups: dict[_Shape, list[int]] = {}
    for place, item in enumerate(items):
        if (shape := _shape(item.features)) is not None:
            groups.setdefault(shape, []).append(place)
    for shape, places in groups.items():
        vectors, is_sound = _unit_vectors([items[place].features for place in places], shape)
        if is_sound.any():
            yield [place for place, sound in zip(places, is_sound, strict=True) if sound], vectors[is_sound]


def _shape(features: Mapping[str, bytes]) -> _Shape | None:
    """The towers by name, each with its bytes; None where there are none, or some are no numbers."""
    if not features or any(not data or len(data) % 2 for data in features.values()):
        return None
    return tuple((name, len(features[name])) for name in sorted(features))


def _unit_vectors(features: Sequence[Mapping[str, bytes]], shape: _Shape) -> tuple[Vector, NDArray[np.bool_]]:
    """[items, size], and which of them are sound: none of the towers zero or infinite."""
    parts, is_sound = [], np.ones(len(features), bool)
    for name, size in shape:
        part = np.frombuffer(b"".join(each[name] for each in features), "<f2").astype(np.float32)
        part = part.reshape(len(features), size // 2)
        lengths = np.sqrt(np.einsum("ij,ij->i", part, part))
        sound = (lengths > 0) & np.isfinite(lengths)
        is_sound &= sound
        parts.append(part / np.where(sound, lengths, 1)[:, None])
    return (np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts)))).astype(np.float32), is_sound


def _scope(item: ReviewItem) -> str:
    prompt = item.prompt or "" if item.scores is not None and item.scores.correspondence is not None else ""
    return "\0".join((item.tenant, item.queue, item.model, prompt))


def _number(*parts: str) -> int:
    """63 bits, so that SQLite takes them for an integer."""
    digest = hashlib.blake2b("\0\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _codes(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[items, TABLES]: the bits of each table as a number, with the table's own in front."""
    powers = np.left_shift(np.uint64(1), np.arange(BITS, dtype=np.uint64))
    numbers = signs.reshape(len(signs), TABLES, BITS).astype(np.uint64) @ powers
    return numbers | np.left_shift(np.arange(1, TABLES + 1, dtype=np.uint64), np.uint64(BITS))


@cache
def _directions(size: int) -> Vector:
    """The same ones in every process."""
    return np.random.default_rng(20260101).standard_normal((size, _DIRECTIONS)).astype(np.float32)
