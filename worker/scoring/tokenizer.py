"""CLIP's tokenizer without torch. Gives the same ids as open_clip for any text."""

import html
from collections.abc import Sequence
from typing import Self

import ftfy
import numpy as np
import regex
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from worker.scoring.manifest import ManifestError
from worker.scoring.token_ids import TokenIds

START, END = "<start_of_text>", "<end_of_text>"

_PIECES = regex.compile(
    rf"""{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+""", regex.IGNORECASE
)


class ClipTokenizer:
    """Byte pairs over cleaned, lower-cased text, as open_clip's SimpleTokenizer (clean="lower") does it.

    A text that does not fit the context is cut, and its last token is the end. Pieces are split in Python, by the same
    library as the reference, since other engines class a few characters otherwise; the merging of bytes, which costs
    most and must not grow with the square of a word, is left to tokenizers. Safe to call from several threads.
    """

    def __init__(self, pairs: Tokenizer, context: int) -> None:
        self._pairs = pairs.model
        self._bytes = ByteLevel(add_prefix_space=False, use_regex=False)
        self._context = context
        self._special = {name: _id(pairs, name) for name in (START, END)}

    @classmethod
    def read(cls, where: str, data: bytes, context: int) -> Self:
        """The tokenizer of a model's file. Raises ManifestError."""
        try:
            pairs = Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises plain Exceptions
            raise ManifestError(f"{where}: not a tokenizer: {error}; import the model again") from error
        if not isinstance(pairs.model, BPE):
            raise ManifestError(f"{where}: is not CLIP's byte pair tokenizer; import the model again")
        return cls(pairs, context)

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        """The ids of each text between start and end."""
        ids = np.zeros((len(texts), self._context), np.int32)
        for row, text in zip(ids, texts, strict=True):
            found = [self._special[START], *self._encode(text, self._context - 2), self._special[END]]
            row[: len(found)] = found
        return ids

    def _encode(self, text: str, most: int) -> list[int]:
        ids: list[int] = []
        for piece in _PIECES.finditer(_cleaned(text)):
            ids.extend(self._piece(piece.group()))
            if len(ids) >= most:
                return ids[:most]
        return ids

    def _piece(self, piece: str) -> list[int]:
        if piece in self._special:
            return [self._special[piece]]
        ((spelled, _),) = self._bytes.pre_tokenize_str(piece)
        return [token.id for token in self._pairs.tokenize(spelled)]


def _cleaned(text: str) -> str:
    # Unpaired surrogates, which JSON allows, are removed; the reference would fail on them.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(whole))).split()).lower()


def _id(pairs: Tokenizer, name: str) -> int:
    found = pairs.token_to_id(name)
    if found is None:
        raise ManifestError(f"the tokenizer has no token {name}; import the model again")
    return int(found)
