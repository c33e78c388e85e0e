"""Groups examples that must stay together in a split: those with the same prompt or image."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worker.model.data import DataError, Example


@dataclass(frozen=True, slots=True)
class Joined:
    """Examples with joined groups. `copies`: the number of duplicate images; `before`, `after`: the numbers of
    groups.
    """

    examples: list[Example]
    copies: int
    before: int
    after: int


def join_kin(examples: Sequence[Example]) -> Joined:
    """Joins groups that share an image (by its bytes) or a prompt (ignoring case and spaces). Other groups do not
    change, and neither do their places in splits. Raises DataError for an image that cannot be read.
    """
    contents = _contents([example.image for example in examples])
    first = unite(
        [
            [("group", example.group), *kin_keys(example.prompt, content)]
            for example, content in zip(examples, contents, strict=True)
        ]
    )
    names = [examples[row].group for row in first]
    return Joined(
        [replace(example, group=name) for example, name in zip(examples, names, strict=True)],
        len(contents) - len(set(contents)),
        len({example.group for example in examples}),
        len(set(names)),
    )


def unite(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each row the first row of its group: rows are connected by common keys, transitively."""
    above = list(range(len(keys)))

    def root(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    holder: dict[Hashable, int] = {}
    for row, held in enumerate(keys):
        for key in held:
            one, other = root(holder.setdefault(key, row)), root(row)
            above[max(one, other)] = min(one, other)
    return [root(row) for row in range(len(keys))]


def kin_keys(prompt: str | None, content: str | None) -> list[tuple[str, str]]:
    """The keys of an image: its prompt and its content, if known."""
    words = " ".join((prompt or "").split()).casefold()
    return [(name, key) for name, key in (("prompt", words), ("content", content)) if key]


def _contents(images: Sequence[Path]) -> list[str]:
    """What tells each image's bytes from the others': copies have one size, so that most need not be read for it."""
    try:
        sizes = [image.stat().st_size for image in images]
        several = {size for size, number in Counter(sizes).items() if number > 1}
        return [
            hashlib.sha256(image.read_bytes()).hexdigest() if size in several else str(image)
            for image, size in zip(images, sizes, strict=True)
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
