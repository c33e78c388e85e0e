"""How long a regular expression takes on the longest prompt, estimated from its text before it is used.

The CEL library's engine, Rust's regex, never backtracks. But it compiles a pattern at each call, and a pattern that can
be in many states at once it follows through all of them, at each byte: one that counts repetitions, or has things
that are wide (`.`, `\\w`, `[^a]`) or may be lacking one after another.
"""

import re
from dataclasses import dataclass
from typing import Final

_CALL: Final = 800
_CHARACTER: Final = 100
_MAX_COUNT: Final = 10_000
"""A larger count is taken for this one, which no condition may have."""

_PART: Final = re.compile(
    r"(?P<flags>\(\?[a-zA-Z-]+\))"
    r"|(?P<open>\((?:\?(?:[a-zA-Z-]*:|P?<\w+>))?)"
    r"|(?P<close>\))"
    r"|(?P<count>\s*\{\s*(?P<least>\d{0,9})\s*(?P<most>,\s*\d{0,9})?\s*\})"
    r"|(?P<sign>[*+?|\s])"
    r"|(?P<edge>(?:\\[bBAzZ]|[\^$])+)"
    r"|(?P<atom>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]+|\\[pPxuU]\{[^}]*\}|\\.|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Steps:
    """What a part takes where it stands alone, and what each of its copies takes, made by a count."""

    alone: int = 0
    copied: int = 0

    def __add__(self, other: "_Steps") -> "_Steps":
        return _Steps(self.alone + other.alone, self.copied + other.copied)

    def copies(self, count: int) -> "_Steps":
        return _Steps(self.copied * count, self.copied * count)


_WORDS: Final = _Steps(5_000, 12_000)
"""`\\w` and its like: hundreds of ranges of Unicode, compiled each time."""
_WIDE: Final = _Steps(200, 6_000)
_NOT_ASCII: Final = _Steps(0, 6_000)
_EDGE: Final = _Steps(0, 4_000)
_PLAIN: Final = _Steps(0, 2_000)


@dataclass(slots=True)
class _Group:
    """What an open group, or the whole pattern, holds so far.

    `wide`: a wide thing, or one that may be lacking, stands directly before what comes next; `wide_before`: before
    what came last.
    """

    wide: bool
    entered_wide: bool
    wide_before: bool = False
    left_wide: bool = False
    done: _Steps = _Steps()
    last: _Steps = _Steps()

    def take(self, part: _Steps) -> None:
        self.done += self.last
        self.last = part

    def may_lack_last(self) -> None:
        if self.wide_before:
            self.last = self.last.copies(1)
        self.wide = True


def pattern_steps(pattern: str) -> int:
    """The steps (cost.py) of a pattern that the library takes for one."""
    groups = [_Group(wide=False, entered_wide=False)]
    for part in _PART.finditer(pattern):
        group = groups[-1]
        match part.lastgroup:
            case "open":
                groups.append(_Group(group.wide, group.wide))
            case "close" if len(groups) > 1:
                inner = groups.pop()
                group = groups[-1]
                group.take(inner.done + inner.last)
                group.wide_before, group.wide = group.wide, inner.wide or inner.left_wide
            case "count":
                least = int(part["least"] or 0)
                most = int(part["most"].strip(", ") or least + 1) if part["most"] else least
                group.last = group.last.copies(min(most, _MAX_COUNT)) if most > 1 else group.last
                if least == 0:
                    group.may_lack_last()
            case "sign" if part["sign"] == "|":
                group.left_wide, group.wide = group.left_wide or group.wide, group.entered_wide
            case "sign" if part["sign"] in "*?":
                group.may_lack_last()
            case "edge":
                group.take(_EDGE if len(part[0]) <= 2 else _EDGE.copies(1 + len(part[0]) // 2))
            case "atom":
                steps = _atom_steps(part["atom"])
                is_wide = steps in (_WORDS, _WIDE)
                group.take(steps.copies(1) if is_wide and group.wide else steps)
                group.wide_before, group.wide = group.wide, is_wide
    whole = sum((group.done + group.last for group in groups), _Steps())
    return _CALL + _CHARACTER * len(pattern) + whole.alone


def _atom_steps(atom: str) -> _Steps:
    if re.search(r"(?<!\\)(?:\\\\)*\\[wWpP]", atom):
        return _WORDS
    is_class = atom.startswith("[")
    if atom in (".", r"\D", r"\S") or (is_class and re.search(r"\[:?\^|\\[DS]|[^\x00-\x7f]", atom)):
        return _WIDE
    return _PLAIN if atom.isascii() and atom[:2] not in (r"\x", r"\u", r"\U") else _NOT_ASCII
