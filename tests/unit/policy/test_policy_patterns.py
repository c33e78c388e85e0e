"""What a pattern takes is estimated from its text; here the estimate meets the library."""

import json
import time
from bisect import bisect
from collections.abc import Callable

import cel
import pytest

from worker.policy.cost import MAX_STEPS
from worker.policy.patterns import pattern_steps

WIDE_LETTERS = "\N{MATHEMATICAL SCRIPT CAPITAL X}\N{MATHEMATICAL SCRIPT CAPITAL Y}" * 10_000
ONE_ACCENT = "ab" * 9_999 + "aé"


def longest(pattern: Callable[[int], str]) -> str:
    """Of a pattern that grows with a number, the longest that a condition may have."""
    return pattern(bisect(range(1, 2000), MAX_STEPS, key=lambda count: pattern_steps(pattern(count))))


def seconds(pattern: str, prompt: str) -> float:
    """Of a processor, the least of three."""
    program, context = cel.compile(f"x.matches({json.dumps(pattern)})"), cel.Context()
    context.add_variable("x", prompt)

    def once() -> float:
        started = time.thread_time()
        program.execute(context)
        return time.thread_time() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize("part", [r"\w?\W?", r"\B\w?", "[^a]?", "(?:.|ab)?"])
def test_the_longest_pattern_that_is_taken_is_soon_done_with_the_longest_prompt(part: str) -> None:
    written = longest(lambda count: part * count + r"\d\bx")
    counted = longest(lambda count: f".*a(?:{part}){{{count}}}c")
    for prompt in (WIDE_LETTERS, ONE_ACCENT):
        assert seconds(written, prompt) < 0.25, written
        assert seconds(counted, prompt) < 0.25, counted


@pytest.mark.parametrize(
    ("pattern", "like"),
    [
        (r"(?:\w{3}){4}", r"\w{12}"),
        (r"(?x) \w {3}", r"\w{3}"),
        (r"[^\]a]{9}", ".{9}"),
        (r"[[^a]]{9}", ".{9}"),
        (r"\p{L}{9}", r"\w{9}"),
        (r"\x{1D4B3}{9}", "é{9}"),
        (r"(?P<name>.){2,9}?", ".{9}"),
        (r".{,9}", ".{9}"),
        (r"(?:a|.)(?:.|a)", ".."),
        (r".(?:ab)?.", ".."),
    ],
)
def test_patterns_that_make_as_many_states_are_estimated_alike(pattern: str, like: str) -> None:
    assert pattern_steps(pattern) == pytest.approx(pattern_steps(like), abs=100 * len(pattern) + 6_000)
    assert pattern_steps(pattern) > 6_000
