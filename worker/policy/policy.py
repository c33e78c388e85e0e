"""The policy: from an event and its scores to a route."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cel

from schemas import NO_PROVENANCE, ImageEvent, Provenance, Route, Scores
from worker.policy.document import Destination, FailureEntry
from worker.policy.errors import PolicyError
from worker.policy.expression import Expression
from worker.policy.vocabulary import EvaluationError, Field


class Routes(dict[int, Route]):
    """A rule's route by the event's priority, cached: building a Route takes longer than evaluating conditions."""

    def __init__(self, rule: str, to: Destination) -> None:
        own = 0 if to.priority is None else to.priority
        self._route = Route(action=to.action, queue=to.queue, priority=own, labels=to.labels, rule=rule)
        self._keeps = to.priority is None

    def __missing__(self, priority: int) -> Route:
        route = self._route.model_copy(update={"priority": priority}) if self._keeps else self._route
        self[priority] = route
        return route


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule. Without a condition it takes every event."""

    name: str
    condition: Expression | None
    routes: Routes
    binds: tuple[Field, ...] = ()
    """The fields that its condition reads and no rule before it in the chain does."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The rules that apply to a tenant, in order; the last takes every event."""

    rules: tuple[Rule, ...]
    failures: FailureEntry

    @staticmethod
    def make(rules: Sequence[Rule], failures: FailureEntry) -> "Chain":
        return Chain(tuple(_with_binds(rules)), failures)


def _with_binds(rules: Sequence[Rule]) -> Iterator[Rule]:
    bound: set[Field] = set()
    for rule in rules:
        reads = rule.condition.reads if rule.condition is not None else ()
        yield replace(rule, binds=tuple(field for field in reads if field not in bound))
        bound.update(reads)


class Policy:
    """A checked policy: immutable, safe to use from several threads."""

    def __init__(self, version: str, digest: str, common: Chain, tenants: Mapping[str, Chain]) -> None:
        self.version = version
        self.digest = digest
        self._common = common
        self._tenants = dict(tenants)

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that have rules or constants of their own."""
        return tuple(self._tenants)

    @property
    def reads(self) -> frozenset[Field]:
        """The fields that its conditions read, of all tenants."""
        chains = (self._common, *self._tenants.values())
        return frozenset(field for chain in chains for rule in chain.rules for field in rule.binds)

    def chain(self, tenant: str) -> Chain:
        """The rules for a tenant."""
        return self._tenants.get(tenant, self._common)

    def route(self, event: ImageEvent, scores: Scores, provenance: Provenance = NO_PROVENANCE) -> Route:
        """The route of the first rule that holds.

        Raises PolicyError, with rule and reason, when a rule before that has no answer for this event: nothing can then
        be said of it, and it must be failed closed.
        """
        context = cel.Context()
        for rule in self.chain(event.tenant).rules:
            if rule.condition is None:
                return rule.routes[event.priority]
            try:
                for field in rule.binds:
                    field.bind(context, field.of(event, scores, provenance))
                if rule.condition.holds(context):
                    return rule.routes[event.priority]
            except EvaluationError as error:
                raise PolicyError(f"rule {rule.name!r}: {error}") from None
        raise AssertionError("the last rule of a chain takes every event")

    def failure_route(self, tenant: str, priority: int) -> Route:
        """Where an image goes that could not be judged: always to review."""
        failures = self.chain(tenant).failures
        kept = priority if failures.priority is None else failures.priority
        return Route(action="review", queue=failures.queue, priority=kept, rule="failure")
