"""Texts as the full-text index takes them, and what people type as its queries."""

import re
from typing import Final

MAX_WORDS: Final = 16
MIN_PREFIX: Final = 3
"""A shorter word must match a whole word: too many words begin with it."""

_WORDLESS = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003134f])"
)
"""Characters of scripts that put no blanks between words."""


def indexed(text: str) -> str:
    """The text, with a blank between characters of scripts that have none between words: each is a word then."""
    return text if text.isascii() else _WORDLESS.sub(r" \1 ", text)


def match_expression(text: str, columns: tuple[str, ...]) -> str | None:
    """An FTS5 query for texts that have, in any of the columns, each of the words, or words that begin with them; None
    where `text` has no word."""
    phrases = []
    for word in text.split()[:MAX_WORDS]:
        if not any(character.isalnum() for character in word):
            continue
        quoted = '"' + indexed(word).replace('"', '""').strip() + '"'
        is_prefix = len(word) >= MIN_PREFIX and not _WORDLESS.search(word)
        phrases.append(quoted + ("*" if is_prefix else ""))
    if not phrases:
        return None
    return f"{{{' '.join(columns)}}} : ({' AND '.join(phrases)})"
