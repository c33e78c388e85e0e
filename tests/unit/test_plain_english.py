"""Code and documentation avoid phrases of an older style that readers had to decipher."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TEXTS: Final = (".py", ".md", ".js", ".html", ".yaml")
SKIPPED: Final = ("vendor", "node_modules", "lab_notebook.md")

INSTEAD: Final = {
    r"ailments?": "problems",
    r"a fault of ours": "a bug; an internal error",
    r"anew": "again",
    r"came of (it|the|a)": "the result of",
    r"comes of it": "the result",
    r"(in|of) words of ours": "with our own message",
    r"is to be had|are to be had|cannot be had": "is available; cannot be read",
    r"mend(s|ed|ing)?": "fix",
    r"none of ours": "not ours; invalid",
    r"nought": "zero",
    r"one's own": "your own",
    r"so that it bears": "so that it supports",
    r"stands? still": "is stopped; makes no progress",
    r"(is|are|was|were) told to stop": "is stopped",
    r"tells? of": "reports; is about",
    r"what comes of": "the result of",
    r"(whence|wherefore|thereof|hence|thus|upon|lest|aught)": "from where; therefore; on; so that",
}


def test_no_text_uses_a_phrase_of_the_list() -> None:
    phrase = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b")
    uses = [f"{path.relative_to(ROOT)}: {hit[0]!r}" for path in _texts() for hit in phrase.finditer(path.read_text())]
    assert uses == [], "tests/unit/test_plain_english.py lists what to write instead"


def _texts() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ("worker", "trt_build", "schemas", "ops", "deploy", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in TEXTS and not any(part in SKIPPED for part in path.parts):
                yield path
