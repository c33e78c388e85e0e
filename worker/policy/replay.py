"""Routes past verdicts by another policy, and compares."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cel

from schemas import Provenance, Route, Scores, Verdict
from worker.policy.policy import Policy
from worker.policy.vocabulary import FIELDS, EvaluationError, Field

EXAMPLES_A_KIND: Final = 5


@dataclass(frozen=True, slots=True)
class Flip:
    """A verdict that would have gone elsewhere. `before` and `after` are destinations: `pass`, `review:quality`."""

    before: str
    after: str
    event_id: str
    tenant: str
    quality: float
    rule_before: str
    rule_after: str


@dataclass(slots=True)
class Replay:
    """The comparison. `before` and `after` count the same verdicts, the replayed ones, by destination."""

    total: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[Flip] = field(default_factory=list)
    """The first EXAMPLES_A_KIND flips of each kind."""
    changed: int = 0
    """Same destination, other priority or labels."""
    failed: int = 0
    """Never scored, so no policy can judge them; not in the counts."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Verdicts that a rule could not be tried on, by rule; not in the counts."""
    undecided_reads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What such a rule reads that verdicts do not carry, as `event.prompt`."""

    @property
    def replayed(self) -> int:
        return self.before.total()


class _Undecided(Exception):
    """The rule depends on a field that the verdict does not carry."""

    def __init__(self, rule: str, reads: tuple[str, ...]) -> None:
        super().__init__(rule)
        self.rule = rule
        self.reads = reads


def replay(policy: Policy, verdicts: Iterable[Verdict]) -> Replay:
    """Routes past verdicts by a policy.

    Verdicts carry scores, provenance, id, tenant, time, generator and reference, but neither prompt, attributes,
    priority, content type nor sha256. A rule that reads one of those is still tried: where its other parts decide, the
    verdict is replayed; where not, it is counted as undecided, with the rule. A rule without a priority is taken to
    keep the verdict's. A queue counts as overloaded where the verdict says so, whatever capacity the policy states.
    """
    result = Replay()
    kinds: Counter[tuple[str, str]] = result.flips
    for verdict in verdicts:
        result.total += 1
        if verdict.scores is None:
            result.failed += 1
            continue
        try:
            after = _route(policy, verdict, verdict.scores)
        except _Undecided as error:
            result.undecided[error.rule] += 1
            result.undecided_reads[error.rule] = error.reads
            continue
        before = verdict.route
        kind = destination(before), destination(after)
        result.before[kind[0]] += 1
        result.after[kind[1]] += 1
        if kind[0] == kind[1]:
            result.changed += (before.priority, before.labels) != (after.priority, after.labels)
            continue
        kinds[kind] += 1
        if kinds[kind] <= EXAMPLES_A_KIND:
            quality = verdict.scores.quality
            result.examples.append(Flip(*kind, verdict.event_id, verdict.tenant, quality, before.rule, after.rule))
    return result


def destination(route: Route) -> str:
    """`pass`, `reject`, or `review:queue`."""
    return route.action if route.queue is None else f"{route.action}:{route.queue}"


def _route(policy: Policy, verdict: Verdict, scores: Scores) -> Route:
    """Like Policy.route, with only the fields of a verdict. Raises _Undecided."""
    known = dict(_known(verdict, scores))
    context = cel.Context()
    for rule in policy.chain(verdict.tenant).rules:
        condition, overload = rule.condition, rule.overload
        try:
            if condition is not None:
                _bind(context, rule.binds, known)
                if not condition.holds(context):
                    continue
            routes = rule.routes
            if overload is not None and overload.queue in verdict.overloaded:
                condition = overload.condition
                _bind(context, overload.reads, known)
                routes = overload.routes(verdict.event_id, context)
            return routes[verdict.route.priority]
        except EvaluationError:
            reads = () if condition is None else condition.reads
            missing = tuple(str(read) for read in reads if read not in known)
            if missing:
                raise _Undecided(rule.name, missing) from None
            return policy.failure_route(verdict.tenant, verdict.route.priority)
    raise AssertionError("the last rule of a chain takes every event")


def _bind(context: cel.Context, reads: Iterable[Field], known: Mapping[Field, Any]) -> None:
    for read in reads:
        if read in known:
            read.bind(context, known[read])


_FROM_VERDICT: Final[Mapping[str, str]] = {
    "id": "event_id",
    "tenant": "tenant",
    "occurred_at": "occurred_at",
    "generator": "generator",
    "image": "image",
}


def _was_read(read: Field, provenance: Provenance) -> bool:
    """Whether the worker that wrote the verdict read this: one that verified no manifest cannot tell what it says."""
    return provenance.c2pa != "unverified" or not read.name.startswith("c2pa")


def _known(verdict: Verdict, scores: Scores) -> Iterator[tuple[Field, Any]]:
    """The fields that a verdict tells, with their values; None for what the event lacked."""
    for read in FIELDS.values():
        if read.variable == "scores":
            yield read, getattr(scores, read.name)
        elif read.variable == "provenance":
            if verdict.provenance is not None and _was_read(read, verdict.provenance):
                yield read, getattr(verdict.provenance, read.name)
        elif (name := _FROM_VERDICT.get(read.name)) is not None:
            value = getattr(verdict, name)
            if read.name == "image" and value is not None:
                value = value.model_dump(exclude_none=True)
            # An inline image is left out of the verdict, so that its absence tells nothing.
            if value is not None or read.optional:
                yield read, value
