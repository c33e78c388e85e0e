"""Parses and checks a policy file. Every problem is reported with file, line and rule."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas import RouteOverload
from schemas.explain import dotted, problems, suggestion
from worker.policy.checks import FAILED_WORK, MAX_WORK, check_expression
from worker.policy.document import (
    MAX_LABELS,
    CapacityEntry,
    Destination,
    OverloadDestination,
    OverloadEntry,
    PolicyDocument,
    QueueEntry,
    RuleEntry,
    TenantEntry,
)
from worker.policy.errors import PolicyError
from worker.policy.expression import Constant, Expression, ExpressionError
from worker.policy.policy import Chain, OverloadRule, Policy, Routes, Rule
from worker.yaml_document import YamlDocument, YamlError, parse_yaml, read_yaml

DEFAULT: Final = Path(__file__).with_name("default.yaml")
"""The policy that ships."""

MAX_RULES: Final = 50_000
"""Over all tenants: the common rules count again for each that has rules or constants of its own."""
MAX_FAULTS: Final = 50

_KEYS: Final = tuple(
    field.alias or name
    for model in (PolicyDocument, TenantEntry, RuleEntry, Destination, QueueEntry, CapacityEntry, OverloadEntry)
    for name, field in model.model_fields.items()
)


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """A problem at a path of the file; `line` counts from 1 within the value at that path."""

    path: tuple[str | int, ...]
    text: str
    line: int = 1


def load_policy(path: Path | None) -> Policy:
    """Loads a policy from a file; None: the default policy. Raises PolicyError with all problems, one a line."""
    try:
        return _made(read_yaml(path or DEFAULT))
    except YamlError as error:
        raise PolicyError(str(error)) from None


def parse_policy(content: bytes, name: str) -> Policy:
    """Parses the content of a policy file; `name` is the file's name in messages. Raises as `load_policy`."""
    try:
        return _made(parse_yaml(content, name))
    except YamlError as error:
        raise PolicyError(str(error)) from None


def _made(source: YamlDocument) -> Policy:
    try:
        document = PolicyDocument.model_validate(source.data)
    except ValidationError as error:
        raise _refusal(source, [PolicyFault(each.path, each.text) for each in problems(error, known=_KEYS)]) from None
    if faults := [*_misplaced(document), *_unfit_constants(document), *_too_many(document), *_unfit_queues(document)]:
        raise _refusal(source, faults)
    try:
        compiler = _Compiler(document, faults)
        common = compiler.common()
        tenants = {name: compiler.chain(name, common) for name in document.tenants}
    except _TooMuchWork:
        fault = (
            "its conditions take too long to check; write fewer, shorter ones, or have fewer tenants change a constant"
        )
        raise _refusal(source, [PolicyFault(("rules",), fault)]) from None
    if faults:
        raise _refusal(source, faults)
    capacities = {name: entry.capacity for name, entry in document.queues.items()}
    return Policy(document.version, _digest(document), common, tenants, capacities)


class _TooMuchWork(Exception):
    """Checking all conditions would take too long."""


class _Compiler:
    """Compiles each condition once for each set of constants; tenants share the result."""

    def __init__(self, document: PolicyDocument, faults: list[PolicyFault]) -> None:
        self._document = document
        self._faults = faults
        self._checked: dict[tuple[str, str], Expression | ExpressionError] = {}
        self._rules: dict[tuple[str, int, Destination, int], Rule] = {}
        self._work = 0

    def common(self) -> Chain:
        document = self._document
        return Chain.make(self._compiled(document.rules, ("rules",), document.constants), document.failures)

    def chain(self, name: str, common: Chain) -> Chain:
        """A tenant's own rules and then the common ones, with the tenant's constants."""
        document, tenant = self._document, self._document.tenants[name]
        failures = tenant.failures or document.failures
        if not tenant.rules and not tenant.constants:
            return Chain(common.rules, failures)
        constants = {**document.constants, **tenant.constants}
        own = self._compiled(tenant.rules, ("tenants", name, "rules"), constants, prefix=f"{name}/")
        shared = self._compiled(document.rules, ("rules",), constants) if tenant.constants else common.rules
        return Chain.make((*own, *shared), failures)

    def _compiled(
        self,
        rules: Sequence[RuleEntry],
        path: tuple[str, ...],
        constants: Mapping[str, Constant],
        *,
        prefix: str = "",
    ) -> tuple[Rule, ...]:
        """Compiles the rules; those that cannot be compiled are added to the faults."""
        compiled = []
        for index, entry in enumerate(rules):
            condition = None if entry.when is None else self._condition(entry.when, constants)
            if isinstance(condition, ExpressionError):
                self._faults.append(PolicyFault((*path, index, "when"), str(condition), condition.line))
            else:
                widened = self._widened(entry.route.queue, constants)
                compiled.append(self._rule(f"{prefix}{entry.name}", condition, entry.route, widened))
        return tuple(compiled)

    def _widened(self, queue: str | None, constants: Mapping[str, Constant]) -> Expression | None:
        """The condition of the queue's overload rule, if it has one that can be compiled; otherwise a fault."""
        entry = self._document.queues.get(queue or "")
        if entry is None or entry.overload.when is None:
            return None
        condition = self._condition(entry.overload.when, constants)
        if isinstance(condition, Expression):
            return condition
        path = ("queues", str(queue), "overload", "when")
        self._faults.append(PolicyFault(path, str(condition), condition.line))
        return None

    def _condition(self, when: str, constants: Mapping[str, Constant]) -> Expression | ExpressionError:
        read = {name: value for name, value in constants.items() if name in when}
        key = when, repr(read)  # not the values themselves: 1, 1.0 and true are equal
        if key not in self._checked:
            try:
                self._checked[key] = expression = check_expression(when, constants)
                self._work += expression.work
            except ExpressionError as error:
                self._checked[key] = error
                self._work += FAILED_WORK
            if self._work > MAX_WORK:
                raise _TooMuchWork
        return self._checked[key]

    def _rule(self, name: str, condition: Expression | None, to: Destination, widened: Expression | None) -> Rule:
        key = name, id(condition), to, id(widened)
        if key not in self._rules:
            entry = self._document.queues.get(to.queue or "")
            overload = None if entry is None else _overload_rule(name, to, entry.overload, widened)
            self._rules[key] = Rule(name, condition, Routes(name, to), overload)
        return self._rules[key]


def _overload_rule(rule: str, to: Destination, entry: OverloadEntry, widened: Expression | None) -> OverloadRule:
    """What a rule that sends `to` a queue does while that is overloaded."""
    queue = str(to.queue)
    note = RouteOverload(queue=queue, mode=entry.mode)
    usual = Routes(rule, to, note)
    if entry.route is None:
        return OverloadRule(queue, usual)
    priority = to.priority if entry.route.priority is None else entry.route.priority
    stricter = entry.route.model_copy(update={"priority": priority, "labels": _labels(to, entry.route)})
    return OverloadRule(queue, usual, Routes(rule, stricter, note), entry.share or 1.0, widened)


def _labels(to: Destination, stricter: Destination) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*to.labels, *stricter.labels)))


def _misplaced(document: PolicyDocument) -> Iterator[PolicyFault]:
    """Reports duplicate names, unreachable rules and a missing default rule."""
    yield from _misplaced_in(document.rules, ("rules",))
    for name, tenant in document.tenants.items():
        yield from _misplaced_in(tenant.rules, ("tenants", name, "rules"))
    if all(rule.when is not None for rule in document.rules):
        last = len(document.rules) - 1
        yield PolicyFault(
            ("rules", last), "there is no default: add a last rule without `when`, which takes what is left"
        )


def _misplaced_in(rules: Sequence[RuleEntry], path: tuple[str, ...]) -> Iterator[PolicyFault]:
    seen: set[str] = set()
    takes_all: str | None = None
    for index, rule in enumerate(rules):
        if rule.name in seen:
            yield PolicyFault((*path, index, "name"), "there is another rule of this name; names must differ")
        if takes_all is not None:
            yield PolicyFault(
                (*path, index), f"no event reaches it: rule {takes_all!r} has no `when` and takes everything"
            )
        seen.add(rule.name)
        takes_all = takes_all or (rule.name if rule.when is None else None)


def _unfit_constants(document: PolicyDocument) -> Iterator[PolicyFault]:
    """A tenant's constants replace common ones: of the same name, and of the same type."""
    for name, tenant in document.tenants.items():
        for constant, value in tenant.constants.items():
            path = ("tenants", name, "constants", constant)
            if constant not in document.constants:
                hint = suggestion(constant, document.constants)
                yield PolicyFault(path, f"there is no common constant of this name to replace{hint}")
            elif _kind(value) != _kind(document.constants[constant]):
                yield PolicyFault(path, f"expected {_kind(document.constants[constant])}, as the common constant is")


def _unfit_queues(document: PolicyDocument) -> Iterator[PolicyFault]:
    """Reports queues to which no rule sends, and overload rules that send an image back to their own queue or give it
    too many labels."""
    rules = [*document.rules, *(rule for tenant in document.tenants.values() for rule in tenant.rules)]
    reached = {rule.route.queue for rule in rules if rule.route.queue is not None}
    failures = {document.failures.queue, *(each.failures.queue for each in document.tenants.values() if each.failures)}
    for name, entry in document.queues.items():
        if name not in reached:
            hint = (
                "; images that could not be judged go there, and they always wait for a person"
                if name in failures
                else suggestion(name, reached)
            )
            yield PolicyFault(("queues", name), f"no rule sends images to this queue{hint}")
        route = entry.overload.route
        if route is not None:
            yield from _unfit_overload(name, route, [rule for rule in rules if rule.route.queue == name])


def _unfit_overload(queue: str, route: OverloadDestination, rules: Sequence[RuleEntry]) -> Iterator[PolicyFault]:
    path = ("queues", queue, "overload", "route")
    if route.queue == queue:
        yield PolicyFault((*path, "queue"), "this is the queue that is overloaded; name another one, or use reject")
    for rule in rules:
        if (count := len(_labels(rule.route, route))) > MAX_LABELS:
            yield PolicyFault((*path, "labels"), f"with those of rule {rule.name!r} {count}; at most {MAX_LABELS}")


def _too_many(document: PolicyDocument) -> Iterator[PolicyFault]:
    tenants = document.tenants.values()
    chains = 1 + sum(bool(tenant.rules or tenant.constants) for tenant in tenants)
    rules = chains * len(document.rules) + sum(len(tenant.rules) for tenant in tenants)
    if rules > MAX_RULES:
        yield PolicyFault(
            ("rules",),
            f"{rules} rules, counting common ones again for each tenant with rules or constants; "
            f"at most {MAX_RULES} are taken",
        )


def _kind(value: Constant) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list"


def _refusal(source: YamlDocument, faults: Sequence[PolicyFault]) -> PolicyError:
    """One line a fault, in the order of the file, each once: a common rule is compiled for several tenants."""
    found = {(source.text_line(fault.path) + fault.line - 1, _described(source.data, fault)) for fault in faults}
    lines = [f"{source.name}:{line}: {text}" for line, text in sorted(found)]
    if len(lines) > MAX_FAULTS:
        lines[MAX_FAULTS:] = [f"{source.name}: and {len(lines) - MAX_FAULTS} more problems"]
    return PolicyError("\n".join(lines))


def _described(data: Any, fault: PolicyFault) -> str:
    """The fault with its rule, where it is in one, and the way to it."""
    for depth, part in enumerate(fault.path):
        try:
            data = data[part]
        except (LookupError, TypeError):  # what is missing has no place
            break
        if isinstance(data, dict) and isinstance(part, int) and fault.path[depth - 1] == "rules":
            name, below = data.get("name", f"number {part + 1}"), dotted(fault.path[depth + 1 :])
            return f"rule {name!r}: {below}: {fault.text}" if below else f"rule {name!r}: {fault.text}"
    return f"{dotted(fault.path)}: {fault.text}" if fault.path else fault.text


def _digest(document: PolicyDocument) -> str:
    """The digest of the policy's content, independent of comments and layout."""
    told = document.model_dump(mode="json", by_alias=True)
    if not document.queues:
        del told["queues"]  # so that policies which do without keep the digest that they had before there were any
    content = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
