"""The table of the drills says what was lost, and keeps the rows of drills that were not run again."""

import json
from pathlib import Path

from ops.drills.table import DrillResult, write


def row(drill: str, **changes: object) -> DrillResult:
    values: dict[str, object] = {
        "drill": drill,
        "what": "Something breaks.",
        "repeats": 3,
        "events": 100,
        "verdicts": 100,
        "lost": 0,
        "twice": 0,
        "unseen": 0,
        "recovery_seconds": (0.5, 9.0, 1.5),
        "made": "2026-11-30 21:00",
    }
    return DrillResult(**(values | changes))  # type: ignore[arg-type]


def test_a_row_tells_counts_and_the_median_and_worst_recovery(tmp_path: Path) -> None:
    write([row("freeze")], tmp_path)
    line = (tmp_path / "drills.md").read_text().splitlines()[-1]
    assert line == ("| freeze | Something breaks. | 3 | 100 | 100 | 0 | 0 | 0 | 1.5 s, 9.0 s | 2026-11-30 21:00 |")


def test_a_drill_that_ended_early_says_why(tmp_path: Path) -> None:
    write([row("freeze", failure="events lack their verdicts\nlog line", recovery_seconds=())], tmp_path)
    line = (tmp_path / "drills.md").read_text().splitlines()[-1]
    assert "**Ended early: events lack their verdicts**" in line
    assert "log line" not in line


def test_a_drill_that_is_run_again_replaces_its_row_and_no_other(tmp_path: Path) -> None:
    write([row("storm"), row("freeze", events=1)], tmp_path)
    write([row("freeze", events=2)], tmp_path)
    rows = json.loads((tmp_path / "drills.json").read_text())
    assert [(kept["drill"], kept["events"]) for kept in rows] == [("freeze", 2), ("storm", 100)]


def test_the_promise_is_kept_only_where_nothing_is_lost_repeated_or_unseen() -> None:
    assert row("freeze").kept_the_promise
    for fault in ("lost", "twice", "unseen"):
        assert not row("freeze", **{fault: 1}).kept_the_promise
    assert not row("freeze", failure="it stopped").kept_the_promise
