"""Evaluates shadow policies beside the live one. They decide nothing."""

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from schemas import NO_PROVENANCE, ImageEvent, Provenance, Route, Scores, ShadowRoute
from worker.policy.errors import PolicyError
from worker.policy.overload import Overloaded
from worker.policy.policy import Policy

log = structlog.get_logger(__name__)

NOTHING_OVERLOADED: Final[Mapping[str, Overloaded]] = {}


def shadow_routes(
    shadows: Mapping[str, Policy],
    route: Route,
    event: ImageEvent | None,
    scores: Scores | None,
    failed: Callable[[str], None],
    provenance: Provenance = NO_PROVENANCE,
    overloaded: Mapping[str, Overloaded] = NOTHING_OVERLOADED,
) -> tuple[ShadowRoute, ...]:
    """The answer of each shadow to what the live policy sent on `route`. A record that held no event has no `event`.
    `overloaded` are the queues over the capacity that each shadow states, by its name.

    One that cannot be asked is left out, and `failed` is called with its name: nothing that a shadow does may touch
    the live verdict.
    """
    answers = []
    for name, policy in shadows.items():
        try:
            theirs = _route(policy, event, scores, provenance, overloaded.get(name, ()))
            same = _effect(theirs) == _effect(route)
            answers.append(ShadowRoute(name=name, policy=policy.digest, route=None if same else theirs))
        except Exception:
            log.exception("shadow_policy_failed", shadow=name, policy=policy.digest)
            failed(name)
    return tuple(answers)


def _route(
    policy: Policy, event: ImageEvent | None, scores: Scores | None, provenance: Provenance, overloaded: Overloaded
) -> Route:
    """As the worker would have it, with this policy live."""
    if event is None:
        return policy.failure_route("default", 50)
    if scores is not None:
        try:
            return policy.route(event, scores, provenance, overloaded)
        except PolicyError:
            pass  # live, it would have been failed closed
    return policy.failure_route(event.tenant, event.priority)


def _effect(route: Route) -> tuple[object, ...]:
    """The parts of a route that are compared; the rule's name is not."""
    return route.action, route.queue, route.priority, route.labels
