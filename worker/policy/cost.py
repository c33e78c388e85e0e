"""How long a condition takes for an event, estimated from its tokens before anything is compiled or run.

A condition cannot be stopped once it runs, and holds the process meanwhile. So what is too long is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import cel

from worker.policy.expression import Constant
from worker.policy.patterns import pattern_steps
from worker.policy.references import ExpressionToken
from worker.policy.vocabulary import MACROS

MAX_STEPS: Final = 500_000
"""For one condition and event, 25 to 50 ms. A step is a token that is evaluated once: 0.05 to 0.1 us, measured."""

ATTRIBUTE_VALUES: Final = 100
"""Elements that a list or map in an event's attributes is reckoned to have."""
_ATTRIBUTE_PROMPTS: Final = 3
"""Attributes may hold so many times the text of the longest prompt (vocabulary.py)."""
_ANCHORS: Final = 5
_LONG_TEXT: Final = 20
"""Steps to copy a long prompt, or attributes: the library copies what is read."""


def steps_of(tokens: Sequence[ExpressionToken], constants: Mapping[str, Constant], attribute_values: int) -> int:
    """The estimate for an event with lists of so many elements in its attributes.

    What stands within a macro counts for each element of the list that it goes through; `map` and `filter` copy the
    list that they make with each element.
    """
    sizes = _Sizes(tokens, constants, attribute_values)
    factors, factor, steps = [], 1, 0
    for index, token in enumerate(tokens):
        if token.text == "(":
            factors.append(factor)
            factor *= sizes.repeats(index)
        elif token.text == ")" and factors:
            factor = factors.pop()
        steps += factor * sizes.steps(index)
    return steps


def patterns_of(tokens: Sequence[ExpressionToken], constants: Mapping[str, Constant], call: int) -> list[str] | None:
    """The patterns that the `matches` at index `call` may be given, all of them written in the policy; None where an
    event could bring one, and with it any amount of work. Raises ValueError for a literal that CEL cannot read."""
    argument = [token.text for token in tokens[call + 2 : call + 6]]
    if argument[1:2] == [")"] and tokens[call + 2].kind == "text":
        return [str(cel.compile(argument[0]).execute(cel.Context()))]  # escapes may hide what it says
    if argument[:2] == ["constants", "."] and argument[3:] == [")"]:
        return _texts(constants.get(argument[2], ()))
    lists = [_constant_before(tokens, index) for index in range(call) if _binds(tokens, index, argument[0])]
    if argument[1:2] != [")"] or not lists or "" in lists:
        return None
    return [text for name in lists for text in _texts(constants.get(name, ()))]


def _binds(tokens: Sequence[ExpressionToken], index: int, name: str) -> bool:
    """Whether a macro is called there that goes through a list by this name."""
    return tokens[index].text in MACROS and [token.text for token in tokens[index + 1 : index + 3]] == ["(", name]


def _constant_before(tokens: Sequence[ExpressionToken], index: int) -> str:
    """`NAME` where `constants.NAME.` stands before the token, else nothing."""
    before = [token.text for token in tokens[max(0, index - 5) : index]]
    is_constant = before[-4:-2] == ["constants", "."] and before[-1:] == ["."] and before[-5:-4] != ["."]
    return before[-2] if is_constant else ""


def size_of(constant: Constant) -> int:
    """Elements of a list; anything else is one."""
    return len(constant) if isinstance(constant, tuple) else 1


class _Sizes:
    """What the tokens at an index stand for."""

    def __init__(
        self, tokens: Sequence[ExpressionToken], constants: Mapping[str, Constant], attribute_values: int
    ) -> None:
        self._tokens = tokens
        self._constants = constants
        self._attribute_values = attribute_values
        self._text_share = _ATTRIBUTE_PROMPTS if any(token.text == "attributes" for token in tokens) else 1
        self._all = 1 + sum(
            max(token.text == ",", self._named(index), attribute_values * (token.text == "attributes"))
            for index, token in enumerate(tokens)
        )

    def steps(self, index: int) -> int:
        token = self._tokens[index]
        if token.text in ("prompt", "attributes"):
            return _LONG_TEXT
        if token.text == "matches":
            patterns = patterns_of(self._tokens, self._constants, index) or [""]
            return self._text_share * max(map(pattern_steps, patterns))
        return 1 + self._named(index)

    def repeats(self, bracket: int) -> int:
        """How often what stands within the bracket is evaluated."""
        macro = self._text(bracket - 1)
        if macro not in MACROS or self._text(bracket - 2) != ".":
            return 1
        size = self._length_before(bracket - 2)
        return size * max(1, size // 8) if macro in ("map", "filter") else size

    def _length_before(self, dot: int) -> int:
        """Elements of what stands before the dot: at most all that the condition has, where that is not plain."""
        end = self._tokens[dot - 1]
        if end.kind == "name":
            if constant := _constant_before(self._tokens, dot + 1):
                return max(1, size_of(self._constants.get(constant, ())))
            is_anchors = end.text == "anchors" and self._text(dot - 3) == "scores"
            return _ANCHORS if is_anchors else max(1, self._attribute_values)
        if end.text == "]":
            opening = self._opening(dot - 1)
            before = self._tokens[opening - 1] if opening else None
            if before is None or not (before.kind == "name" or before.text in ("]", ")")):
                return 1 + sum(token.text == "," for token in self._tokens[opening:dot])
        return self._all

    def _opening(self, closing: int) -> int:
        depth = 0
        for index in range(closing, -1, -1):
            depth += {"]": 1, "[": -1}.get(self._text(index), 0)
            if depth == 0:
                return index
        return 0

    def _named(self, index: int) -> int:
        """Elements of the constant that the token names; 0 for any other token."""
        if self._text(index - 1) != "." or self._text(index - 2) != "constants":
            return 0
        return size_of(self._constants.get(self._text(index), ()))

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""


def _texts(value: Constant) -> list[str]:
    return [str(each) for each in (value if isinstance(value, tuple) else (value,))]
