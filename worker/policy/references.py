"""What a condition reads, found in its text.

The CEL library tells an expression's variables, but not the fields it reads of them. So the text is read as tokens
here, which is enough because each use of a variable must name its field: `event.prompt`, never `event[...]`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.policy.vocabulary import MACROS

VARIABLES: Final = ("event", "scores", "provenance", "constants")

_TOKEN: Final = re.compile(
    r"(?P<space>\s+|//[^\n]*)"
    r'|(?P<text>[rRbB]{0,2}(?:"""(?:[^\\]|\\.)*?"""|"(?:[^"\\\n]|\\.)*"))'
    r"|(?P<text2>[rRbB]{0,2}(?:'''(?:[^\\]|\\.)*?'''|'(?:[^'\\\n]|\\.)*'))"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[uU]?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ExpressionToken:
    kind: str
    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Reference:
    """A use of a variable, as the path of names below it, and where it stands in the text.

    `start` and `end` enclose the variable and its field, `constants.poor`, without what follows; where it `asks` for
    the field, `has(event.prompt)`, all of that. One that `guards` asks whether its path exists, be it below a field:
    `has(event.attributes.nsfw)`, `"nsfw" in event.attributes`.
    """

    path: tuple[str, ...]
    start: int
    end: int
    line: int
    guards: bool = False
    asks: bool = False


def tokens_of(source: str) -> list[ExpressionToken]:
    """The tokens of a valid CEL expression, without space and comments."""
    found = []
    for match in _TOKEN.finditer(source):
        kind = str(match.lastgroup).removesuffix("2")
        if kind != "space":
            found.append(ExpressionToken(kind, match[0], match.start(), source.count("\n", 0, match.start()) + 1))
    return found


def references_of(tokens: Sequence[ExpressionToken]) -> Iterator[Reference]:
    """Each use of one of VARIABLES; one that names no field has a path of one."""
    for first, token in enumerate(tokens):
        if token.kind != "name" or token.text not in VARIABLES or _text(tokens, first - 1) == ".":
            continue
        path, last = [token.text], first
        end = token.end
        while (step := _step(tokens, last)) is not None:
            name, last = step
            path.append(name)
            end = tokens[last].end if len(path) == 2 else end
        if len(path) > 1 and _text(tokens, first + 1) != ".":
            path = path[:1]
        guards = _text(tokens, first - 1) == "(" and _text(tokens, first - 2) == "has"
        if guards and len(path) == 2 and path[0] != "constants":
            start, end = tokens[first - 2].start, tokens[last + 1].end
            yield Reference(tuple(path), start, end, token.line, guards=True, asks=True)
            continue
        yield Reference(tuple(path), token.start, end, token.line, guards=guards)
        if _text(tokens, first - 1) == "in" and first > 1 and tokens[first - 2].kind == "text":
            member = (*path, _literal(tokens[first - 2].text))
            yield Reference(member, token.start, end, token.line, guards=True)


def bound_names(tokens: Sequence[ExpressionToken]) -> set[str]:
    """The names that macros bind: `x` in `scores.anchors.exists(x, x > 0.5)`."""
    return {
        name.text
        for macro, bracket, name in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if macro.text in MACROS and bracket.text == "(" and name.kind == "name"
    }


def _step(tokens: Sequence[ExpressionToken], last: int) -> tuple[str, int] | None:
    """The name that follows, as `.name` or `["name"]`, and its last token; None at the end or before a call."""
    if _text(tokens, last + 1) == "." and last + 2 < len(tokens) and tokens[last + 2].kind == "name":
        return None if _text(tokens, last + 3) == "(" else (tokens[last + 2].text, last + 2)
    is_index = _text(tokens, last + 1) == "[" and _text(tokens, last + 3) == "]"
    return (_literal(tokens[last + 2].text), last + 3) if is_index and tokens[last + 2].kind == "text" else None


def _text(tokens: Sequence[ExpressionToken], index: int) -> str:
    return tokens[index].text if 0 <= index < len(tokens) else ""


def _literal(text: str) -> str:
    return text.lstrip("rRbB").strip("\"'")
