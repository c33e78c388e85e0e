"""Checks a condition when the policy is loaded, before any event is routed by it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, pairwise, product
from typing import Final

import cel

from schemas.explain import excerpt, suggestion
from worker.policy.cost import ATTRIBUTE_VALUES, MAX_STEPS, patterns_of, size_of, steps_of
from worker.policy.expression import (
    Constant,
    Expression,
    ExpressionError,
    compile_cel,
    compile_expression,
    reason_of,
    type_of,
)
from worker.policy.references import VARIABLES, ExpressionToken, Reference, bound_names, references_of, tokens_of
from worker.policy.vocabulary import (
    EXAMPLE_IMAGES,
    EXAMPLE_QUALITIES,
    FIELDS,
    FUNCTIONS,
    IMAGE_FIELDS,
    MACROS,
    TYPES,
    Field,
)

MAX_LENGTH: Final = 4096
MAX_NESTED: Final = 2
"""Macros within one another: each multiplies the time that an event takes by the length of its list."""

MAX_WORK: Final = 20_000_000
"""Steps to check all conditions of a policy, one to two seconds."""
_COMPILING: Final = 200
"""Steps to compile a token."""
FAILED_WORK: Final = 20_000
"""Steps that a condition with a fault is reckoned to have taken."""
_BINDING: Final = 50
"""Steps to make one made-up event ready."""

_READERS: Final = frozenset({"timestamp", "duration", "int", "uint", "double"})
"""Functions that read a text, which is wrong for every event if it is in the policy and wrong at all."""

_IMAGE: Final = FIELDS["event", "image"]
_QUALITY: Final = FIELDS["scores", "quality"]
_MAY_BE_ABSENT: Final = frozenset(
    [path for path, field in FIELDS.items() if field.optional]
    + [("event", "image", name) for name in IMAGE_FIELDS if name != "kind"]
)


def check_expression(source: str, constants: Mapping[str, Constant]) -> Expression:
    """Compiles a condition that uses known fields and functions, asks for what may be absent, and is true or false.

    Raises ExpressionError.
    """
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"has {len(source)} characters; at most {MAX_LENGTH} are taken")
    names = compile_cel(source).references()
    tokens = tokens_of(source)
    _check_nesting(tokens)
    references = list(references_of(tokens))
    _check_names(names, bound_names(tokens))
    if not references:
        raise ExpressionError(
            "reads none of event, scores and provenance, so it is the same for every event; leave `when` out"
        )
    for reference in references:
        _check_fields(reference, constants)
    _check_guards(references)
    _check_literals(tokens, constants)
    _check_cost(tokens, constants)
    expression = compile_expression(source, constants)
    trials = list(_trials(expression.reads))
    written = len(tokens) + sum(
        size_of(constants[found.path[1]]) for found in references if found.path[0] == "constants"
    )
    steps = steps_of(tokens, constants, attribute_values=0)
    work = _COMPILING * written + len(trials) * (_BINDING + steps)
    if work > MAX_WORK:
        raise ExpressionError("takes too long to be tried on made-up events; shorten its lists, or read fewer fields")
    _try_out(expression, trials)
    return replace(expression, work=work)


def _check_literals(tokens: Sequence[ExpressionToken], constants: Mapping[str, Constant]) -> None:
    """Refuses literals that are no valid pattern, timestamp, duration or number."""
    for index, token in enumerate(tokens[:-3]):
        if tokens[index + 1].text != "(":
            continue
        if token.text == "matches":
            patterns = patterns_of(tokens, constants, index)
            if patterns is None:
                told = (
                    "takes a pattern that the policy writes, in quotes or as a constant, not one that an event brings"
                )
                raise ExpressionError(f"matches() {told}", token.line)
            for pattern in patterns:
                if not _has_an_answer(f'"".matches({json.dumps(pattern)})'):
                    raise ExpressionError(f"matches(): {excerpt(pattern)} is no regular expression", token.line)
        elif token.text in _READERS and tokens[index + 2].kind == "text" and tokens[index + 3].text == ")":
            text = tokens[index + 2].text
            if not _has_an_answer(f"{token.text}({text})"):
                raise ExpressionError(f"{token.text}() cannot read {excerpt(text)}", token.line)


def _has_an_answer(source: str) -> bool:
    try:
        compile_cel(source).execute(cel.Context())
    except Exception:  # noqa: BLE001 - the library raises a kind for each function
        return False
    return True


def _check_cost(tokens: Sequence[ExpressionToken], constants: Mapping[str, Constant]) -> None:
    steps = steps_of(tokens, constants, ATTRIBUTE_VALUES)
    if steps > MAX_STEPS:
        raise ExpressionError(
            f"takes about {steps} steps for an event with lists of {ATTRIBUTE_VALUES} elements; at most {MAX_STEPS} "
            "are taken: shorten the lists that its macros go through, or the counts in its patterns, where a copy of "
            "[a-z] costs a sixth of one of \\w"
        )


def _check_nesting(tokens: Sequence[ExpressionToken]) -> None:
    brackets: list[bool] = []
    for before, token in pairwise(tokens):
        if token.text == "(":
            brackets.append(before.text in MACROS)
        elif token.text == ")" and brackets:
            brackets.pop()
        if sum(brackets) > MAX_NESTED:
            raise ExpressionError(
                f"{before.text}() is the third macro within another; {MAX_NESTED} are taken", before.line
            )


def _check_names(names: Mapping[str, list[str]], bound: set[str]) -> None:
    for name in bound:
        if "__" in name or name in VARIABLES:
            raise ExpressionError(f"{name}: this name is taken; name the variable of the macro otherwise")
    for name in names["variables"]:
        if name not in VARIABLES and name not in bound and name not in TYPES:
            raise ExpressionError(
                f"{name}: no such variable{suggestion(name, VARIABLES)}; there are event, scores and provenance"
            )
    for name in names["functions"]:
        is_operator = not name.isidentifier()
        if not is_operator and name not in FUNCTIONS:
            raise ExpressionError(f"{name}(): no such function{suggestion(name, FUNCTIONS | MACROS)}")


def _check_fields(reference: Reference, constants: Mapping[str, Constant]) -> None:
    variable, *names = reference.path
    fields = (field.name for field in FIELDS.values() if field.variable == variable)
    known = tuple(constants if variable == "constants" else fields)
    if not names:
        example = known[0] if known else "name"
        raise ExpressionError(f"{variable} must be used by field, such as {variable}.{example}", reference.line)
    if names[0] not in known:
        raise ExpressionError(f"{variable}.{names[0]}: no such field{suggestion(names[0], known)}", reference.line)
    if reference.path[:2] == ("event", "image") and names[1:] and names[1] not in IMAGE_FIELDS:
        hint = suggestion(names[1], IMAGE_FIELDS)
        raise ExpressionError(f"event.image.{names[1]}: no such field{hint}", reference.line)


def _check_guards(references: list[Reference]) -> None:
    """Refuses a use of an optional field without `has()`: the rule would fail for every event that lacks the field."""
    guarded = {reference.path for reference in references if reference.guards}
    for reference in references:
        used = reference.path[:-1] if reference.guards else reference.path
        for length in range(2, len(used) + 1):
            path = used[:length]
            is_attribute = path[:2] == ("event", "attributes") and length > 2
            if (path in _MAY_BE_ABSENT or is_attribute) and path not in guarded:
                name = ".".join(path)
                asked = f"has({name})" if path[-1].isidentifier() else f'"{path[-1]}" in {".".join(path[:-1])}'
                raise ExpressionError(f"{name} may be absent: write {asked} && ... before it", reference.line)


def _trials(reads: Sequence[Field]) -> Iterator[tuple[tuple[Field, ...], object, float]]:
    """Made-up events: which of the fields they lack, their image, and their quality.

    Without each of the optional fields, each two and all.
    """
    optional = [field for field in reads if field.optional]
    images = EXAMPLE_IMAGES if _IMAGE in reads else EXAMPLE_IMAGES[:1]
    qualities = EXAMPLE_QUALITIES if _QUALITY in reads else EXAMPLE_QUALITIES[:1]
    return product(_absences(optional), images, qualities)


def _try_out(expression: Expression, trials: Iterable[tuple[tuple[Field, ...], object, float]]) -> None:
    """Evaluates the condition on made-up events.

    Finds conditions that are not true or false, comparisons between types, and what never has an answer. It does not
    reach every branch; the rest shows when it happens, and the event then goes to review.
    """
    context, lacking = cel.Context(), None
    answers, failures = 0, []
    for absent, image, quality in trials:
        if absent is not lacking:
            context, lacking = cel.Context(), absent
            for field in expression.reads:
                field.bind(context, None if field in absent else field.example)
        for field, value in ((_IMAGE, image), (_QUALITY, quality)):
            if field in expression.reads:
                field.bind(context, value)
        failure = _try_with(expression, context, absent)
        if failure is None:
            answers += 1
        elif isinstance(failure, IndexError | ArithmeticError):
            failures.append(failure)
    if failures and not answers:
        raise ExpressionError(f"cannot be evaluated: {reason_of(failures[0])}, for every event")


def _try_with(expression: Expression, context: cel.Context, absent: Sequence[Field]) -> Exception | None:
    """The error of evaluating a made-up event, if it may be due to the made-up values."""
    try:
        result = expression.program.execute(context)
    except (TypeError, KeyError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("Undefined"):
            return error  # a made-up value may be no date or number where a real one is
        where = f"; an event may lack {' and '.join(map(str, absent))}" if absent else ""
        raise ExpressionError(f"cannot be evaluated: {reason_of(error)}{where}") from None
    except (ValueError, IndexError, ArithmeticError) as error:
        return error
    if not isinstance(result, bool):
        raise ExpressionError(f"must be true or false, but is {type_of(result)}, such as {excerpt(result)}")
    return None


def _absences(fields: Sequence[Field]) -> Iterator[tuple[Field, ...]]:
    """No field, each one, each pair, and all of them; all subsets would double with each further field."""
    sizes = sorted({0, 1, 2, len(fields)} & set(range(len(fields) + 1)))
    return chain.from_iterable(combinations(fields, size) for size in sizes)
