import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Provenance, Scores
from worker.cache.codec import (
    CorruptValue,
    decode_features,
    decode_scores,
    encode_features,
    encode_scores,
    seal,
)

DECODERS = [decode_scores, decode_features]

quality = st.floats(1, 5)
some_scores = st.builds(
    Scores,
    quality=quality,
    anchors=st.none() | st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 5),
    coarse_share=st.none() | st.floats(0, 1),
    correspondence=st.none() | quality,
)
some_provenance = st.none() | st.builds(
    Provenance,
    found=st.booleans(),
    c2pa=st.sampled_from(["absent", "trusted"]),
    model=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    steps=st.none() | st.integers(0, 1_000_000),
)
some_features = st.dictionaries(st.text(max_size=9), st.binary(max_size=99), max_size=3)


@given(some_scores, some_provenance)
def test_scores_and_provenance_read_back_exactly(scores: Scores, provenance: Provenance | None) -> None:
    assert decode_scores(encode_scores(scores, provenance)) == (scores, provenance)


@given(some_features)
def test_features_read_back_exactly(features: dict[str, bytes]) -> None:
    assert decode_features(encode_features(features)) == features


@given(st.builds(encode_scores, some_scores, some_provenance) | some_features.map(encode_features), st.data())
def test_any_changed_bit_or_cut_makes_a_value_unreadable(value: bytes, data: st.DataObject) -> None:
    broken = bytearray(value)
    position = data.draw(st.integers(0, len(broken) - 1))
    if data.draw(st.booleans()):
        del broken[position:]
    else:
        broken[position] ^= 1 << data.draw(st.integers(0, 7))
    for decode in DECODERS:
        with pytest.raises(CorruptValue):
            decode(bytes(broken))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_unreadable_even_when_sealed(content: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(CorruptValue):
            decode(content)
        with pytest.raises(CorruptValue):
            decode(seal(content))


@pytest.mark.parametrize(
    "scores",
    [
        b'-{"quality":7.0}',
        b'0{"quality":"good"}',
        b'+[{"quality":2.0},{"model":""}]',
        b'+[{"quality":2.0}]',
        b'+{"quality":2.0}',
        b'{"quality":2.0}',
        b'1{"quality":2.0}',
        b"-",
        b"[]",
        b"",
    ],
)
def test_scores_that_cannot_be_are_unreadable(scores: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode_scores(seal(scores))


@pytest.mark.parametrize("header", [b'{"coarse":-1}', b'{"coarse":5}', b"[]", b""])
def test_features_that_cannot_be_are_unreadable(header: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode_features(seal(struct.pack("<I", len(header)) + header))


def test_values_are_compact() -> None:
    scores = Scores(quality=1 / 3 + 3, anchors=(0.1, 0.2, 0.3, 0.3, 0.1), coarse_share=0.51)
    assert len(encode_scores(scores, Provenance())) < 200
    assert len(encode_features({"coarse": bytes(1024), "fine": bytes(1024)})) < 2048 + 50
