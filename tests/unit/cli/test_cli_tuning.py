"""What `sluice policy tune` reads of past verdicts."""

import weakref
from collections.abc import Iterator
from datetime import UTC, datetime

from schemas import Route, Scores, Source, Verdict
from worker.cli.tuning import VerdictHistory

DIGEST = f"sha256:{'0' * 64}"


def verdict(event_id: str, quality: float, minute: int = 0) -> Verdict:
    return Verdict(
        verdict_id="v",
        event_id=event_id,
        tenant="default",
        occurred_at=None,
        judged_at=datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
        content_hash=DIGEST,
        status="scored",
        scores=Scores(quality=quality),
        route=Route(action="pass", rule="default"),
        model=DIGEST,
        policy=DIGEST,
        source=Source(topic="images.in", partition=0, offset=0),
    )


def test_the_newest_verdict_of_an_event_counts() -> None:
    past = VerdictHistory.of([verdict("a", 2.0), verdict("b", 3.0, 5), verdict("a", 4.0, 9)], {"b": True})
    assert [(each.quality, each.bad) for each in past.scored] == [(4.0, None), (3.0, True)]
    assert past.first_at is not None
    assert past.last_at is not None
    assert (past.first_at.minute, past.last_at.minute) == (5, 9)


def test_verdicts_are_not_kept_so_that_a_long_file_fits_into_memory() -> None:
    made: list[weakref.ref[Verdict]] = []

    def stream() -> Iterator[Verdict]:
        for number in range(50):
            made.append(weakref.ref(each := verdict(str(number), 3.0)))
            yield each
        assert sum(reference() is not None for reference in made) <= 2

    assert len(VerdictHistory.of(stream(), {}).scored) == 50
