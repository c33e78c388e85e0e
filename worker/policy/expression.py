"""A condition in CEL, the Common Expression Language (https://cel.dev), over `event`, `scores` and `provenance`.

Before it is compiled, the policy's `constants` are written into its text, and fields become variables (vocabulary.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cel

from schemas.explain import excerpt
from worker.policy.references import Reference, references_of, tokens_of
from worker.policy.vocabulary import FIELDS, EvaluationError, Field

MAX_WRITTEN: Final = 65_536
"""Characters of a condition with the constants written in; the library compiles so many in a third of a second."""

Constant = bool | int | float | str | tuple[bool | int | float | str, ...]


class ExpressionError(Exception):
    """A condition that cannot be used; `line` counts from 1 within its text."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition, and the fields it reads: each must be bound in the context, whether present or absent.

    Where one is not bound at all, the condition has an answer only if the field does not matter to it, because CEL's
    `&&` and `||` answer in spite of an error on one side where the other side decides.
    """

    program: cel.Program
    reads: tuple[Field, ...]
    work: int = 0
    """Steps that checking it took, about (cost.py)."""

    def holds(self, context: cel.Context) -> bool:
        """Whether the condition is true. Raises EvaluationError."""
        try:
            result = self.program.execute(context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic in the library's Rust is no Exception
            raise EvaluationError(reason_of(error)) from None
        if isinstance(result, bool):
            return result
        raise EvaluationError(f"it must be true or false, but is {type_of(result)}")


def compile_expression(source: str, constants: Mapping[str, Constant]) -> Expression:
    """Compiles a condition whose fields and constants are known to exist. Raises ExpressionError."""
    references = list(references_of(tokens_of(source)))
    edits = {(found.start, found.end): _translated(found, constants) for found in references}
    for (start, end), text in sorted(edits.items(), reverse=True):
        source = source[:start] + text + source[end:]
    if len(source) > MAX_WRITTEN:
        raise ExpressionError(f"has {len(source)} characters with its constants; at most {MAX_WRITTEN} are taken")
    reads = {FIELDS[found.path[:2]] for found in references if found.path[0] != "constants"}
    return Expression(compile_cel(source), tuple(sorted(reads, key=str)))


def compile_cel(source: str) -> cel.Program:
    """The program of a text. Raises ExpressionError with line and column."""
    try:
        return cel.compile(source)
    except ValueError as error:
        found = re.search(r"<input>:(\d+):(\d+): (.*)", str(error))
        if found is None:
            raise ExpressionError("cannot be read as CEL") from None
        text = found[3].removeprefix("Syntax error: ").partition(" expecting ")[0]
        if nested := re.search(r"Recursion limit of (\d+)", text):
            text = f"brackets or operators nested more than {nested[1]} deep"
        raise ExpressionError(f"CEL syntax error at column {found[2]}: {text}", int(found[1])) from None


def reason_of(error: BaseException) -> str:
    """Why an evaluation failed. The library's own words may repeat the event's values, so they are not passed on."""
    if isinstance(error, KeyError):
        return f"{excerpt(error.args[0] if error.args else '')} is absent; ask with has(...) first"
    if isinstance(error, TypeError):
        return "a value has the wrong type: numbers compare with numbers, text with text; && and || join true or false"
    if isinstance(error, IndexError):
        return "an index is beyond the end of a list"
    if isinstance(error, OverflowError | ZeroDivisionError):
        return "a number is out of range, or a division by zero"
    if found := re.match(r"Function '(\w+)' error", str(error)):
        return f"{found[1]}() cannot read this value"
    if found := re.match(r"Undefined variable or function: '(\w+)'", str(error)):
        variable, _, name = found[1].partition("__")
        if name:
            return f"{variable}.{name} is absent; ask with has(...) first"
        return f"{found[1]}() does not apply to a value of this type"
    return f"{type(error).__name__} in the evaluation"


def type_of(value: object) -> str:
    """The name of a CEL value's type."""
    names: dict[type, str] = {int: "a number", float: "a number", str: "text", list: "a list", dict: "a map"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def _translated(found: Reference, constants: Mapping[str, Constant]) -> str:
    """What stands in the compiled text for a use of a field or a constant."""
    if found.path[0] == "constants":
        return f"({json.dumps(constants[found.path[1]], ensure_ascii=False)})"  # JSON's literals are CEL's
    field = FIELDS[found.path[:2]]
    if not found.asks:
        return field.cel_name
    return field.given_name if field.optional else "true"
