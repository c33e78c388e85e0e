import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Scores
from worker.cache.codec import CachedScore, CorruptValue, decode_score, encode_score, seal

quality = st.floats(1, 5)
scores = st.builds(
    Scores,
    quality=quality,
    anchors=st.none() | st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 5),
    coarse_share=st.none() | st.floats(0, 1),
    correspondence=st.none() | quality,
)
cached = st.builds(CachedScore, scores, st.dictionaries(st.text(max_size=9), st.binary(max_size=99), max_size=3))


@given(cached)
def test_a_score_reads_back_exactly(score: CachedScore) -> None:
    assert decode_score(encode_score(score)) == score


@given(cached, st.data())
def test_any_changed_bit_or_cut_makes_it_unreadable(score: CachedScore, data: st.DataObject) -> None:
    value = bytearray(encode_score(score))
    position = data.draw(st.integers(0, len(value) - 1))
    if data.draw(st.booleans()):
        del value[position:]
    else:
        value[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptValue):
        decode_score(bytes(value))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_unreadable_even_when_sealed(content: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode_score(content)
    with pytest.raises(CorruptValue):
        decode_score(seal(content))


@pytest.mark.parametrize(
    "header",
    [
        b'{"scores":{"quality":7.0},"sizes":{}}',
        b'{"scores":{"quality":3.0},"sizes":{"coarse":-1}}',
        b'{"scores":{"quality":3.0},"sizes":{"coarse":5}}',
        b'{"scores":{"quality":3.0}}',
        b"[]",
        b"",
    ],
)
def test_scores_that_cannot_be_are_unreadable(header: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode_score(seal(struct.pack("<I", len(header)) + header))


def test_a_score_with_features_is_compact() -> None:
    features = {"coarse": b"\0" * 1024, "fine": b"\0" * 1024}
    score = CachedScore(Scores(quality=1 / 3 + 3, anchors=(0.1, 0.2, 0.3, 0.3, 0.1), coarse_share=0.51), features)
    assert len(encode_score(score)) < 2048 + 250
