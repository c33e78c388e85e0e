"""The policy: from an event and its scores to a route."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cel

from schemas import NO_PROVENANCE, ImageEvent, Provenance, Route, RouteOverload, Scores
from worker.policy.document import CapacityEntry, Destination, FailureEntry
from worker.policy.errors import PolicyError
from worker.policy.expression import Expression
from worker.policy.overload import Overloaded, is_drawn
from worker.policy.vocabulary import EvaluationError, Field


class Routes(dict[int, Route]):
    """A rule's route by the event's priority, cached: building a Route takes longer than evaluating conditions."""

    def __init__(self, rule: str, to: Destination, overload: RouteOverload | None = None) -> None:
        own = 0 if to.priority is None else to.priority
        self._route = Route(
            action=to.action, queue=to.queue, priority=own, labels=to.labels, rule=rule, overload=overload
        )
        self._keeps = to.priority is None

    def __missing__(self, priority: int) -> Route:
        route = self._route.model_copy(update={"priority": priority}) if self._keeps else self._route
        self[priority] = route
        return route


@dataclass(frozen=True, slots=True)
class OverloadRule:
    """What a rule does while its queue is over its capacity. `usual` and `stricter` are routes with a note of that.

    Without `stricter` every image takes the usual route. With a `condition`, those that meet it take the stricter one;
    without, those that are not drawn for `share`.
    """

    queue: str
    usual: Routes
    stricter: Routes | None = None
    share: float = 1.0
    condition: Expression | None = None

    def routes(self, event_id: str, context: cel.Context) -> Routes:
        """The routes for an event; the condition's fields are bound in `context`. Raises EvaluationError."""
        if self.stricter is None:
            return self.usual
        if self.condition is not None:
            return self.stricter if self.condition.holds(context) else self.usual
        return self.usual if is_drawn(event_id, self.queue, self.share) else self.stricter

    @property
    def reads(self) -> tuple[Field, ...]:
        return () if self.condition is None else self.condition.reads


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule. Without a condition it takes every event."""

    name: str
    condition: Expression | None
    routes: Routes
    overload: OverloadRule | None = None
    """Of one that sends to a queue with a capacity."""
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

    def __init__(
        self,
        version: str,
        digest: str,
        common: Chain,
        tenants: Mapping[str, Chain],
        capacities: Mapping[str, CapacityEntry] | None = None,
    ) -> None:
        self.version = version
        self.digest = digest
        self.capacities: Mapping[str, CapacityEntry] = dict(capacities or {})
        """Of the review queues that have one."""
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
        rules = [rule for chain in chains for rule in chain.rules]
        overloads = [rule.overload for rule in rules if rule.overload is not None]
        return frozenset(field for rule in rules for field in rule.binds).union(*(each.reads for each in overloads))

    def chain(self, tenant: str) -> Chain:
        """The rules for a tenant."""
        return self._tenants.get(tenant, self._common)

    def route(
        self,
        event: ImageEvent,
        scores: Scores,
        provenance: Provenance = NO_PROVENANCE,
        overloaded: Overloaded = (),
    ) -> Route:
        """The route of the first rule that holds; its overload rule decides where its queue is among `overloaded`.

        Raises PolicyError, with rule and reason, when a rule before that has no answer for this event: nothing can then
        be said of it, and it must be failed closed.
        """
        context = cel.Context()
        for rule in self.chain(event.tenant).rules:
            try:
                if rule.condition is not None:
                    for field in rule.binds:
                        field.bind(context, field.of(event, scores, provenance))
                    if not rule.condition.holds(context):
                        continue
                routes, overload = rule.routes, rule.overload
                if overload is not None and overload.queue in overloaded:
                    for field in overload.reads:
                        field.bind(context, field.of(event, scores, provenance))
                    routes = overload.routes(event.id, context)
                return routes[event.priority]
            except EvaluationError as error:
                raise PolicyError(f"rule {rule.name!r}: {error}") from None
        raise AssertionError("the last rule of a chain takes every event")

    def failure_route(self, tenant: str, priority: int) -> Route:
        """Where an image goes that could not be judged: always to review."""
        failures = self.chain(tenant).failures
        kept = priority if failures.priority is None else failures.priority
        return Route(action="review", queue=failures.queue, priority=kept, rule="failure")
