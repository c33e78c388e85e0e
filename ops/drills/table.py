"""The drills' results as JSON and as a Markdown table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ops.drills.drill import AnyDrill
from ops.drills.faults import DRILLS
from ops.drills.stream_bench import StreamBench


@dataclass(frozen=True, slots=True)
class DrillResult:
    """One drill's outcome: numbers of events, and seconds."""

    drill: str
    what: str
    repeats: int
    events: int
    verdicts: int
    lost: int
    """Events without a verdict."""
    twice: int
    """Events with more than one."""
    unseen: int
    """Events that a person had to see and cannot."""
    recovery_seconds: tuple[float, ...]
    """From the end of each fault until all that was published before it had a verdict; for kill-worker, from the
    restart to the next verdict."""
    made: str
    """When the drill ended, in UTC."""
    failure: str | None = None
    """Why the drill ended early."""
    notes: tuple[str, ...] = ()
    """What else was measured."""

    @property
    def kept_the_promise(self) -> bool:
        return not (self.lost or self.twice or self.unseen or self.failure)


def outcome(drill: AnyDrill, repeats: int, bench: StreamBench, failure: str | None = None) -> DrillResult:
    """Counts what has been published and seen up to now."""
    published = dict(bench.publisher.published)
    return DrillResult(
        drill=drill.name,
        what=drill.what,
        repeats=repeats,
        events=len(published),
        verdicts=bench.counter.seen(),
        lost=len(bench.counter.missing(published)),
        twice=len(bench.counter.twice()),
        unseen=len(bench.counter.unseen()),
        recovery_seconds=tuple(round(seconds, 1) for seconds in bench.recoveries),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        failure=failure,
        notes=tuple(bench.notes),
    )


def write(rows: Sequence[DrillResult], folder: Path) -> None:
    """Writes drills.json and drills.md below `folder`. Rows of other drills that are there already stay."""
    path = folder / "drills.json"
    known = {row["drill"]: DrillResult(**row) for row in json.loads(path.read_text())} if path.exists() else {}
    known |= {row.drill: row for row in rows}
    kept = [known[drill.name] for drill in DRILLS if drill.name in known]
    path.write_text(json.dumps([asdict(row) for row in kept], indent=2) + "\n")
    (folder / "drills.md").write_text(_HEAD + "\n".join(map(_line, kept)) + "\n")


_HEAD = """\
# Drills

`make drills` makes this table. Each drill makes one kind of fault on real servers while events flow, and counts the
verdicts with a reader of its own (librdkafka, read_committed; plain SQL for the embedded log). Lost: events without a
verdict. Twice: events with more than one. Unseen: events that a person had to see and cannot. Recovery: seconds from
the end of each fault until all that was published before it was judged (for kill-worker: from the restart to the next
verdict). drills.json has every one.

| drill | fault | times | events | verdicts | lost | twice | unseen | recovery (median, worst) | made (UTC) |
|---|---|---:|---:|---:|---:|---:|---:|---|---|
"""


def _line(row: DrillResult) -> str:
    times = sorted(row.recovery_seconds)
    recovery = f"{times[len(times) // 2]:.1f} s, {times[-1]:.1f} s" if times else "-"
    what = " ".join([row.what, *(f"({note})" for note in row.notes)])
    if row.failure is not None:
        what += f" **Ended early: {row.failure.splitlines()[0]}**"
    return (
        f"| {row.drill} | {what} | {row.repeats} | {row.events} | {row.verdicts} "
        f"| {row.lost} | {row.twice} | {row.unseen} | {recovery} | {row.made} |"
    )
