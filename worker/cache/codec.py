"""How cached values are written: compact, exact, and recognised when broken.

A value is a version byte, the CRC-32 of the rest, and the rest. A score's rest is the length of a JSON header, the
header (the scores and the sizes of the features, in order) and the features' bytes. JSON numbers are written so that
they read back as the same double.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, NonNegativeInt, ValidationError

from schemas import Scores

_VERSION = 1
_SEAL = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")


class CorruptValue(ValueError):
    """These bytes are not what the cache wrote."""


@dataclass(frozen=True, slots=True)
class CachedScore:
    """What is known of an image: its scores, and the features they came from (float16 little-endian, by tower)."""

    scores: Scores
    features: Mapping[str, bytes]


class _Header(BaseModel):
    scores: Scores
    sizes: dict[str, NonNegativeInt]


def seal(content: bytes) -> bytes:
    """`content` in a form that `unseal` can check."""
    return _SEAL.pack(_VERSION, zlib.crc32(content)) + content


def unseal(value: bytes) -> bytes:
    """The content. Raises CorruptValue."""
    if len(value) < _SEAL.size:
        raise CorruptValue("too short")
    version, checksum = _SEAL.unpack_from(value)
    content = value[_SEAL.size :]
    if version != _VERSION or zlib.crc32(content) != checksum:
        raise CorruptValue("another version, or broken")
    return content


def encode_score(score: CachedScore) -> bytes:
    sizes = {tower: len(features) for tower, features in score.features.items()}
    header = _Header(scores=score.scores, sizes=sizes).model_dump_json().encode()
    return seal(b"".join([_LENGTH.pack(len(header)), header, *score.features.values()]))


def decode_score(value: bytes) -> CachedScore:
    """Raises CorruptValue."""
    content = unseal(value)
    if len(content) < _LENGTH.size:
        raise CorruptValue("too short")
    position = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    try:
        header = _Header.model_validate_json(content[_LENGTH.size : position])
    except ValidationError as error:
        raise CorruptValue("its header is no score") from error
    features = {}
    for tower, size in header.sizes.items():
        features[tower] = content[position : position + size]
        position += size
    if position != len(content):
        raise CorruptValue("its features are cut, or followed by something")
    return CachedScore(header.scores, features)
