"""Finds example names of the shipped configs that were not replaced."""

import re
from collections.abc import Iterator
from typing import Final

from schemas.explain import DocumentProblem
from worker.apps.checking.keys import Path

_RESERVED: Final = re.compile(r"(?:^|[/.@,\s])((?:[\w-]+\.)*example\.(?:com|net|org))(?=$|[:/,\s])")
"""Reserved example domains (RFC 2606, section 3)."""


def placeholders(data: object) -> Iterator[DocumentProblem]:
    """Each text with a host or bucket below example.com, .net or .org; repeated ones are reported once."""
    told: set[tuple[str | int, str]] = set()
    for path, text in _texts(data, ()):
        match = _RESERVED.search(text)
        if match is not None and (path[-1], text) not in told:
            told.add((path[-1], text))
            yield DocumentProblem(path, f"{match[1]} is an example; replace it with your own name")


def _texts(data: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(data, str) and path:
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*path, index))
