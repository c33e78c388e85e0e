"""The tokenizer that serves against open_clip's own, on what strangers write."""

import random
import string
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

open_clip = pytest.importorskip("open_clip")

from worker.model.clip.export_prompt import tokenizer_file  # noqa: E402
from worker.scoring.manifest import ManifestError  # noqa: E402
from worker.scoring.token_ids import lengths  # noqa: E402
from worker.scoring.tokenizer import ClipTokenizer  # noqa: E402

HOSTILE = [
    "a cat",
    "",
    "   \t\r\n ",
    "A CAT'S hat, it's they've I'm she'll he'd we're",
    "it'\u017f",
    "émigré Ünïcode İ ẞ ŉ ǅ",
    "日本語のプロンプト 한국어 עברית العربية हिन्दी",
    "😀😃👨‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "a" * 10_000,
    "é" * 10_000,
    "word " * 2_000,
    "!?.," * 2_500,
    "&amp;lt;b&amp;gt; &lt;end_of_text&gt; &#0; &#x110000; &notit; &nbsp;",
    "a <end_of_text> b <start_of_text> c",
    "a<<end_of_text>>b <END_OF_TEXT>",
    "\x00\x01\x1b[31mred\x1b[0m\x7f\x85",
    "ï»¿bom \ufeff â€œmojibakeâ€\x9d",
    "ﬁ ligature ½ ² ⅷ ١٢٣ 12345 6.7e-8",
    "\u202eevil\u202c zero\u200bwidth no\u00a0break \u2028line",
    "Z̸̢̛a̷l̵g̴o",
    "\U0001e4d0\U0001f979\U000e0001\ue000\U0010fffd",
    "_under_score_ C++ a/b\\c <script>alert(1)</script> ${x} %s {{y}}",
]


@pytest.fixture(scope="module")
def reference() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def tokenizer(reference: open_clip.SimpleTokenizer) -> ClipTokenizer:
    return ClipTokenizer.read("tokenizer.json", tokenizer_file(reference), 77)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_prompt_has_the_ids_of_the_reference(
    text: str, tokenizer: ClipTokenizer, reference: open_clip.SimpleTokenizer
) -> None:
    np.testing.assert_array_equal(tokenizer([text]), reference([text]).numpy())


@given(text=st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_has_the_ids_of_the_reference(
    text: str, tokenizer: ClipTokenizer, reference: open_clip.SimpleTokenizer
) -> None:
    np.testing.assert_array_equal(tokenizer([text]), reference([text]).numpy())


def test_many_prompts_at_once_are_each_their_own(tokenizer: ClipTokenizer) -> None:
    together = tokenizer(HOSTILE)
    for row, text in zip(together, HOSTILE, strict=True):
        np.testing.assert_array_equal(tokenizer([text])[0], row)
    assert (lengths(together) <= 77).all()
    assert lengths(tokenizer(["", "a cat"])).tolist() == [2, 4]


def test_half_a_character_is_replaced_and_not_refused(tokenizer: ClipTokenizer) -> None:
    np.testing.assert_array_equal(tokenizer(["a\ud800b"]), tokenizer(["a\ufffdb"]))


def test_a_prompt_as_long_as_events_allow_does_not_stop_the_stream(tokenizer: ClipTokenizer) -> None:
    """The reference's merging grows with the square of a word: it takes a minute for this one."""
    word = "".join(random.Random(0).choices(string.ascii_lowercase, k=20_000))
    started = time.perf_counter()
    ids = tokenizer([word, "â€œ" * 6_666, "&amp;" * 4_000])
    assert time.perf_counter() - started < 20  # 0.1 s
    assert lengths(ids).tolist() == [77, 77, 77]


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"tokenizer.json: not a tokenizer"):
        ClipTokenizer.read("tokenizer.json", b"{}", 77)
