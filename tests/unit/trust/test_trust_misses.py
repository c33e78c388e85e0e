"""Miss rates by tenant, model and policy."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas import Route, Scores, Source, Verdict
from worker.trust.misses import MissCell, miss_rates

START = datetime(2026, 11, 1, tzinfo=UTC)
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"


def verdict(
    number: int, *, tenant: str = "acme", model: str = OLD, action: str = "pass", generator: str = "sd"
) -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant=tenant,
        occurred_at=START,
        judged_at=START + timedelta(minutes=number),
        content_hash=None,
        status="scored",
        scores=Scores(quality=3.0),
        route=Route.model_validate({"action": action, "queue": "q" if action == "review" else None, "rule": "r"}),
        model=model,
        policy=OLD,
        generator=generator,
        source=Source(topic="images.in", partition=0, offset=number),
    )


def test_tenants_and_models_are_counted_apart() -> None:
    verdicts = [
        verdict(1),
        verdict(2),
        verdict(3, model=NEW),
        verdict(4, tenant="globex"),
        verdict(5, action="review"),
    ]
    found = miss_rates(verdicts, {"v1": True, "v2": False, "v4": False, "v5": True, "gone": True})
    assert [(rate.cell, rate.passed, rate.audited, rate.missed) for rate in found.rates] == [
        (MissCell("acme", NEW, OLD), 1, 0, 0),
        (MissCell("acme", OLD, OLD), 2, 2, 1),
        (MissCell("globex", OLD, OLD), 1, 1, 0),
    ]
    assert [rate.share for rate in found.rates] == [None, 0.5, 0.0]
    assert [rate.cell.model for rate in found.in_force()] == [NEW, OLD]
    assert found.without_verdict == 2  # one is gone, one did not pass


def test_generators_are_counted_apart_on_request() -> None:
    verdicts = [verdict(1, generator="sd"), verdict(2, generator="xl")]
    found = miss_rates(verdicts, {"v2": True}, by_generator=True)
    assert {rate.cell.generator: rate.missed for rate in found.rates} == {"sd": 0, "xl": 1}
    assert len(found.in_force()) == 2


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=5))
def test_order_and_repeats_of_verdicts_change_no_audit(order: list[int], repeats: list[int]) -> None:
    verdicts = [verdict(number, model=(OLD, NEW)[number % 2]) for number in range(12)]
    audits = {f"v{number}": number % 3 == 0 for number in range(0, 12, 2)}
    found = miss_rates([verdicts[number] for number in (*order, *repeats)], audits)
    expected = miss_rates(verdicts, audits)
    assert [(r.cell, r.audited, r.missed, r.interval) for r in found.rates] == [
        (r.cell, r.audited, r.missed, r.interval) for r in expected.rates
    ]
