"""Compares the verdicts of a replay with the original verdicts."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from pydantic import ValidationError

from schemas import Verdict
from worker.intake.log import Partition, Record
from worker.intake.topic_reader import TopicReader
from worker.policy.overload import Overloaded
from worker.policy.replay import destination
from worker.replay.replay_log import RUN_HEADER
from worker.replay.window import ReplayWindow
from worker.settings import TopicSettings

KEPT = 200
"""How many changes are kept in full; all are counted."""
WAIT_SECONDS = 0.2
DELTA_BINS = 17
"""Changes of quality from -4 to 4 in steps of half a point."""


class EventSource(NamedTuple):
    """Where an event stood: what a verdict and its replay have in common."""

    partition: int
    offset: int
    event: int
    """Counts the events of one record."""


class PastJudgement(NamedTuple):
    """What is kept of a verdict: `route` is a destination such as `review:quality`."""

    route: str
    rule: str
    quality: float | None
    failure: str | None
    model: str
    policy: str
    frame: int = 0
    """Of an animation, the frame that decided."""


@dataclass(frozen=True, slots=True)
class JudgementChange:
    """An event with another route or quality."""

    source: EventSource
    event_id: str
    tenant: str
    before: PastJudgement
    after: PastJudgement

    @property
    def weight(self) -> float:
        """For putting the largest first: another route counts more than any change of quality."""
        quality = abs((self.after.quality or 0) - (self.before.quality or 0))
        return quality + (10 if self.before.route != self.after.route else 0)


@dataclass(slots=True)
class ReplayComparison:
    """`routes` counts events by destination before and after; `deltas` their changes of quality, by half points."""

    replayed: int = 0
    without_past: int = 0
    """Events that have no verdict of their own any more, or none yet."""
    rerouted: int = 0
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)
    deltas: list[int] = field(default_factory=lambda: [0] * DELTA_BINS)
    delta_sum: float = 0.0
    compared_scores: int = 0
    changes: list[JudgementChange] = field(default_factory=list)
    """The KEPT largest changes, largest first."""
    models: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    """Digests of the models and policies of the original verdicts."""

    @property
    def mean_delta(self) -> float:
        return self.delta_sum / self.compared_scores if self.compared_scores else 0.0


def compare(reader: TopicReader, topics: TopicSettings, window: ReplayWindow, run: str) -> ReplayComparison:
    """Reads past verdicts of the window and those of the run. Raises LogError."""
    past = {source: _judgement(verdict) for source, verdict in _past_verdicts(reader, topics, window)}
    comparison = ReplayComparison()
    largest: list[tuple[float, int, JudgementChange]] = []
    order = count()
    for record in _records(reader, dict.fromkeys(reader.ends(topics.replays), 0), topics.replays):
        if dict(record.headers).get(RUN_HEADER) != run.encode() or (verdict := _verdict(record)) is None:
            continue
        source = EventSource(verdict.source.partition, verdict.source.offset, verdict.source.index)
        after, before = _judgement(verdict), past.pop(source, None)
        comparison.replayed += 1
        if before is None:
            comparison.without_past += 1
            continue
        _count(comparison, before, after)
        change = JudgementChange(source, verdict.event_id, verdict.tenant, before, after)
        if change.weight >= 0.01:
            heapq.heappush(largest, (change.weight, next(order), change))
            if len(largest) > KEPT:
                heapq.heappop(largest)
    comparison.changes = [change for _, _, change in sorted(largest, key=lambda item: (-item[0], item[1]))]
    return comparison


def _count(comparison: ReplayComparison, before: PastJudgement, after: PastJudgement) -> None:
    comparison.routes[before.route, after.route] += 1
    comparison.rerouted += before.route != after.route
    comparison.models.add(before.model)
    comparison.policies.add(before.policy)
    if before.quality is not None and after.quality is not None:
        delta = after.quality - before.quality
        comparison.deltas[min(DELTA_BINS - 1, max(0, round(delta * 2) + DELTA_BINS // 2))] += 1
        comparison.delta_sum += delta
        comparison.compared_scores += 1


def past_overloads(reader: TopicReader, topics: TopicSettings, window: ReplayWindow) -> dict[str, Overloaded]:
    """The overloaded review queues of the window's past verdicts, by event id, where there were any. Raises
    LogError."""
    return {
        verdict.event_id: verdict.overloaded
        for _, verdict in _past_verdicts(reader, topics, window)
        if verdict.overloaded
    }


def _past_verdicts(
    reader: TopicReader, topics: TopicSettings, window: ReplayWindow
) -> Iterator[tuple[EventSource, Verdict]]:
    starts = {p.number: at for p, at in window.starts.items()}
    ends = {p.number: at for p, at in window.ends.items()}
    for record in _records(reader, window.verdicts, topics.verdicts):
        verdict = _verdict(record)
        if verdict is None or verdict.source.topic != topics.images:
            continue
        source = verdict.source
        if starts.get(source.partition, 0) <= source.offset < ends.get(source.partition, 0):
            yield EventSource(source.partition, source.offset, source.index), verdict


def _records(reader: TopicReader, positions: Mapping[Partition, int], topic: str) -> Iterator[Record]:
    ends = reader.ends(topic)
    while any(positions[partition] < end for partition, end in ends.items()):
        batch = reader.read(positions, WAIT_SECONDS)
        positions = batch.positions
        yield from batch.records


def _verdict(record: Record) -> Verdict | None:
    try:
        return Verdict.model_validate_json(record.value or b"")
    except ValidationError:
        return None  # of another version of the contract


def _judgement(verdict: Verdict) -> PastJudgement:
    return PastJudgement(
        destination(verdict.route),
        verdict.route.rule,
        None if verdict.scores is None else verdict.scores.quality,
        None if verdict.failure is None else verdict.failure.reason.value,
        verdict.model,
        verdict.policy,
        (None if verdict.scores is None else verdict.scores.worst_frame) or 0,
    )
