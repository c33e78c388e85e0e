"""The desk in numbers."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

import redis

from schemas import Vote
from worker.review.agreement import Panel, overall_kappa, pairwise_kappas
from worker.review.answers import AuditMisses, HourOfWork, ReviewerStatistics, Share, Statistics
from worker.review.catalogue.audit_catalogue import AuditedItem, audited_items
from worker.review.catalogue.catalogue import Catalogue
from worker.review.index import keys
from worker.review.sampling import wilson
from worker.trust.audits import Audits
from worker.trust.confidence import confidence_interval

ENOUGH_SHARED: Final = 5
"""The fewest shared items for which the agreement of reviewers is computed."""
AUDITED_WITHIN: Final = timedelta(days=90)
FIRST_AUDITS: Final = 50
LAST_TIMED: Final = 1_000
LAST_PANELS: Final = 10_000
"""Settlement time and agreement are computed over this many of the items settled last."""

_Settled = tuple[Panel, Vote]


def statistics(client: redis.Redis, catalogue: Catalogue, now: datetime, hours: int) -> Statistics:
    """The last so many hours, the present one among them; agreement and times of the newest items; the audit of the
    last 90 days."""
    present = int(now.timestamp()) // 3600 * 3600
    starts = [present - 3600 * back for back in reversed(range(hours))]
    with client.pipeline(transaction=False) as pipeline:
        for start in starts:
            pipeline.hgetall(keys.hour(start))
        pipeline.zrange(keys.CLOSED, 0, LAST_PANELS - 1, desc=True)
        *tallies, closed = pipeline.execute()
    panels, times = _of_settled(client, closed)
    counts = [_numbers(tally) for tally in tallies]
    settled: list[_Settled] = [tuple(json.loads(panel)) for panel in panels]
    votes = [panel for panel, _ in settled]
    return Statistics(
        hours=tuple(_hour(start, numbers) for start, numbers in zip(starts, counts, strict=True)),
        reviewers=_reviewers(client, counts, settled),
        cohen_kappa=pairwise_kappas(votes, ENOUGH_SHARED),
        fleiss_kappa=overall_kappa(votes, ENOUGH_SHARED),
        audit_misses=_audit_misses(audited_items(catalogue, now - AUDITED_WITHIN)),
        resolved_after_seconds=median(times) if times else None,
    )


def _audit_misses(items: Sequence[AuditedItem]) -> tuple[AuditMisses, ...]:
    """One for each tenant. Leads look at it every day, so its interval holds at all times."""
    newest = {item.tenant: (item.model, item.policy) for item in items}
    in_force: defaultdict[str, list[AuditedItem]] = defaultdict(list)
    for item in items:
        if newest[item.tenant] == (item.model, item.policy):
            in_force[item.tenant].append(item)
    return tuple(_misses_of(in_force[tenant]) for tenant in sorted(in_force))


def _misses_of(items: Sequence[AuditedItem]) -> AuditMisses:
    audits = Audits.of((item.probability, item.bad) for item in items if item.bad is not None)
    # The first ones show what the interval may expect; those that come later must have no say in it.
    smallest = min(item.probability for item in items[:FIRST_AUDITS])
    interval = confidence_interval(audits, smallest)
    first = items[0]
    return AuditMisses(
        tenant=first.tenant,
        model=first.model,
        policy=first.policy,
        since=first.at,
        drawn=len(items),
        audited=audits.audited,
        missed=audits.missed,
        share=audits.share,
        low=interval.low,
        high=interval.high,
    )


def _of_settled(client: redis.Redis, item_ids: Sequence[bytes]) -> tuple[list[bytes], list[float]]:
    """The votes on those that several people judged, and the seconds that each of the first ones took."""
    if not item_ids:
        return [], []
    panels: Any = client.hmget(keys.PANELS, item_ids)
    times: Any = client.hmget(keys.SETTLED_AFTER, item_ids[:LAST_TIMED])
    return [panel for panel in panels if panel is not None], [float(time) for time in times if time is not None]


def _numbers(tally: Mapping[bytes, bytes]) -> dict[tuple[str, str], float]:
    """Counts by outcome and reviewer; for `arrived` the reviewer is empty."""
    numbers = {}
    for name, value in tally.items():
        outcome, _, reviewer = name.decode().partition("|")
        numbers[outcome, reviewer] = float(value)
    return numbers


def _hour(start: int, numbers: Mapping[tuple[str, str], float]) -> HourOfWork:
    sums: Counter[str] = Counter()
    for (outcome, _), number in numbers.items():
        sums[outcome] += int(number)
    return HourOfWork(
        hour=datetime.fromtimestamp(start, UTC),
        arrived=sums["arrived"],
        approved=sums["approve"],
        rejected=sums["reject"],
        held=sums["held"],
        flips=sums["flip"],
    )


def _reviewers(
    client: redis.Redis, counts: Sequence[Mapping[tuple[str, str], float]], settled: Sequence[_Settled]
) -> tuple[ReviewerStatistics, ...]:
    work: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    for numbers in counts:
        for (outcome, reviewer), number in numbers.items():
            if outcome == "seconds":
                seconds[reviewer] += number  # type: ignore[assignment]  # a Counter takes fractions
            elif reviewer:
                work[reviewer][outcome] += int(number)
    names = sorted(work)
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hvals(keys.gold(name))
        gold = pipeline.execute()
    return tuple(
        ReviewerStatistics(
            reviewer=name,
            approved=work[name]["approve"],
            rejected=work[name]["reject"],
            skipped=work[name]["skip"],
            escalated=work[name]["escalate"],
            undone=work[name]["undo"],
            seconds_per_item=seconds[name] / work[name]["timed"] if work[name]["timed"] else None,
            gold=wilson(answers.count(b"1"), len(answers)),
            majority=_with_majority(name, settled),
        )
        for name, answers in zip(names, gold, strict=True)
    )


def _with_majority(reviewer: str, settled: Sequence[_Settled]) -> Share:
    votes = [(panel[reviewer], outcome) for panel, outcome in settled if reviewer in panel]
    return wilson(sum(vote == outcome for vote, outcome in votes), len(votes))
