"""Compares shadow policies with the live one, from the verdicts that carry their routes."""

from collections.abc import Iterable

from schemas import Route, Verdict
from worker.policy.replay import EXAMPLES_A_KIND, Flip, Replay, destination


def shadow_results(verdicts: Iterable[Verdict]) -> dict[str, tuple[str, Replay]]:
    """By the shadow's name: the digest that it had last, and how that one compares with the live policy.

    Verdicts in the order of their judging. `total` counts those that this shadow was asked about, images that could not
    be judged among them; they flip where the two policies keep their failures apart.
    """
    results: dict[str, tuple[str, Replay]] = {}
    for verdict in verdicts:
        for answer in verdict.shadow:
            digest, result = results.get(answer.name, (answer.policy, Replay()))
            if digest != answer.policy:  # the shadow was changed: what the old one did tells nothing of the new one
                result = Replay()
            results[answer.name] = answer.policy, result
            _add(result, verdict, verdict.route if answer.route is None else answer.route)
    return results


def _add(result: Replay, verdict: Verdict, wanted: Route) -> None:
    route = verdict.route
    kind = destination(route), destination(wanted)
    result.total += 1
    result.before[kind[0]] += 1
    result.after[kind[1]] += 1
    if kind[0] == kind[1]:
        result.changed += wanted is not route
        return
    result.flips[kind] += 1
    if verdict.scores is not None and result.flips[kind] <= EXAMPLES_A_KIND:
        quality = verdict.scores.quality
        result.examples.append(Flip(*kind, verdict.event_id, verdict.tenant, quality, route.rule, wanted.rule))
