"""Miss rates by tenant, model and policy."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import AuditPlan, Route, Scores, Source, Verdict
from worker.trust.drawing import AuditDraws, draw_point
from worker.trust.misses import MissCell, MissRates, miss_rates

START = datetime(2026, 11, 1, tzinfo=UTC)
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
IMAGE = {"kind": "file", "path": "/a.png"}
EVERY = AuditDraws((), 1.0)


def verdict(number: int, *, action: str = "pass", quality: float = 3.0, **more: Any) -> Verdict:
    fields: dict[str, Any] = {
        "verdict_id": f"v{number}",
        "event_id": f"e{number}",
        "tenant": "acme",
        "occurred_at": START,
        "judged_at": START + timedelta(minutes=number),
        "image": IMAGE,
        "content_hash": None,
        "status": "scored",
        "scores": Scores(quality=quality),
        "route": Route.model_validate({"action": action, "queue": "q" if action == "review" else None, "rule": "r"}),
        "model": OLD,
        "policy": OLD,
        "generator": "sd",
        "source": Source(topic="images.in", partition=0, offset=number),
    }
    return Verdict(**{**fields, **more})


def plan(minutes: float, *strata: tuple[str, float | None, float]) -> AuditPlan:
    return AuditPlan.model_validate(
        {
            "effective_from": START + timedelta(minutes=minutes),
            "made_at": START,
            "uniform_share": 0.1,
            "strata": [{"name": name, "below": below, "probability": share} for name, below, share in strata],
        }
    )


def rates(
    verdicts: Sequence[Verdict], audits: dict[str, bool], draws: AuditDraws = EVERY, *, by_generator: bool = False
) -> MissRates:
    return miss_rates(verdicts, audits, draws, at_most=0.02, by_generator=by_generator)


def test_tenants_and_models_are_counted_apart() -> None:
    verdicts = [verdict(1), verdict(2), verdict(3, model=NEW), verdict(4, tenant="globex"), verdict(5, action="review")]
    found = rates(verdicts, {"v1": True, "v2": False, "v4": False, "v5": True, "gone": True})
    assert [(rate.cell, rate.passed, rate.audited, rate.missed) for rate in found.rates] == [
        (MissCell("acme", NEW, OLD), 1, 0, 0),
        (MissCell("acme", OLD, OLD), 2, 2, 1),
        (MissCell("globex", OLD, OLD), 1, 1, 0),
    ]
    assert [rate.estimate.share for rate in found.rates] == [None, 0.5, 0.0]
    assert found.rates[0].reason == "none of the 1 drawn images has been judged yet"
    assert [rate.cell.model for rate in found.in_force()] == [NEW, OLD]
    assert found.without_verdict == 2  # one is gone, one did not pass


def test_generators_are_counted_apart_on_request() -> None:
    verdicts = [verdict(1, generator="sd"), verdict(2, generator="xl")]
    found = rates(verdicts, {"v2": True}, by_generator=True)
    assert {rate.cell.generator: rate.missed for rate in found.rates} == {"sd": 0, "xl": 1}
    assert len(found.in_force()) == 2


def test_audits_are_weighted_by_the_plan_that_was_in_force() -> None:
    first = plan(0, ("below-3", 3.0, 1.0), ("rest", None, 0.5))
    second = plan(1000, ("below-3", 3.0, 0.5), ("rest", None, 0.5))
    draws = AuditDraws([second, first], 0.1)
    low = [number for number in range(1000) if draw_point(f"e{number}") < 0.5][:10]
    verdicts = [verdict(number, quality=2.0) for number in low[:5]] + [verdict(number) for number in low[5:]]
    audits = {f"v{number}": place < 2 for place, number in enumerate(low)}
    (rate,) = rates(verdicts, audits, draws).rates
    assert rate.missed == 2
    assert rate.estimate.share == pytest.approx(2 / (5 + 5 * 2))  # the others stand for two each
    later = [each.model_copy(update={"judged_at": START + timedelta(days=1)}) for each in verdicts]
    assert rates(later, audits, draws).rates[0].estimate.share == pytest.approx(0.2)


def test_what_the_numbers_do_not_cover_is_told() -> None:
    draws = AuditDraws((), 0.5)
    not_drawn = next(number for number in range(100) if draw_point(f"e{number}") >= 0.5)
    found = rates([verdict(not_drawn), verdict(1, image=None)], {f"v{not_drawn}": True}, draws)
    assert (found.not_drawn, found.rates[0].not_auditable, found.rates[0].audited) == (1, 1, 0)
    assert found.rates[0].reason == "no image has been drawn yet"
    reason = rates([verdict(1, image=None)], {}).rates[0].reason
    assert reason is not None
    assert "came within their events" in reason


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=5))
def test_order_and_repeats_of_verdicts_change_no_audit(order: list[int], repeats: list[int]) -> None:
    verdicts = [verdict(number, model=(OLD, NEW)[number % 2], quality=1.5 + number / 4) for number in range(12)]
    draws = AuditDraws([plan(0, ("low", 3.0, 1.0), ("rest", None, 0.6))], 0.1)
    audits = {f"v{number}": number % 3 == 0 for number in range(0, 12, 2)}
    found = rates([verdicts[number] for number in (*order, *repeats)], audits, draws)
    expected = rates(verdicts, audits, draws)
    assert [(r.cell, r.drawn, r.audited, r.missed, r.estimate, r.certificate) for r in found.rates] == [
        (r.cell, r.drawn, r.audited, r.missed, r.estimate, r.certificate) for r in expected.rates
    ]
