"""The encoding of cached values: compact and exact, with detection of corruption.

A value is a version byte, the CRC-32 of the rest, and the rest. Of scores the rest is JSON, whose numbers are written
so that they read back as the same double, behind a byte that says what is known of the provenance: `-` not read, `0`
nothing found, as for most images; with `+` the JSON is a list of scores and provenance. Of features the rest is the
length of a JSON header, the header (the sizes of the features by tower, in order) and the features' bytes.
"""

import struct
import zlib
from collections.abc import Mapping

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from schemas import NO_PROVENANCE, Provenance, Scores

_VERSION = 4
"""Counted up when images come to be decoded to other pixels, so that no score of the old ones is found; and with the
form of values."""
_SEAL = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")
# By itself, as validation through the model's method takes a fifth longer.
_validate_scores = TypeAdapter(Scores).validator.validate_json
_WITH_PROVENANCE: TypeAdapter[tuple[Scores, Provenance]] = TypeAdapter(tuple[Scores, Provenance])
_SIZES = TypeAdapter(dict[str, NonNegativeInt])


class CorruptValue(ValueError):
    """The bytes are not a valid cached value."""


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


def encode_scores(scores: Scores, provenance: Provenance | None) -> bytes:
    if provenance is None or provenance == NO_PROVENANCE:
        return seal((b"-" if provenance is None else b"0") + scores.model_dump_json().encode())
    return seal(b"+" + _WITH_PROVENANCE.dump_json((scores, provenance)))


def decode_scores(value: bytes) -> tuple[Scores, Provenance | None]:
    """Raises CorruptValue."""
    content = unseal(value)
    mark, text = content[:1], content[1:]
    try:
        if mark == b"+":
            return _WITH_PROVENANCE.validate_json(text)
        scores: Scores = _validate_scores(text)
    except ValidationError as error:
        raise CorruptValue("no scores") from error
    if mark not in (b"-", b"0"):
        raise CorruptValue("an unknown mark of the provenance")
    return scores, None if mark == b"-" else NO_PROVENANCE


def encode_features(features: Mapping[str, bytes]) -> bytes:
    header = _SIZES.dump_json({tower: len(values) for tower, values in features.items()})
    return seal(b"".join([_LENGTH.pack(len(header)), header, *features.values()]))


def decode_features(value: bytes) -> Mapping[str, bytes]:
    """Raises CorruptValue."""
    content = unseal(value)
    if len(content) < _LENGTH.size:
        raise CorruptValue("too short")
    position = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    try:
        sizes = _SIZES.validate_json(content[_LENGTH.size : position])
    except ValidationError as error:
        raise CorruptValue("its header holds no sizes") from error
    features = {}
    for tower, size in sizes.items():
        features[tower] = content[position : position + size]
        position += size
    if position != len(content):
        raise CorruptValue("its features are cut, or followed by something")
    return features
