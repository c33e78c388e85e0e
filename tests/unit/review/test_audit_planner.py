"""Plans of the audit: published by one desk, followed by all."""

from datetime import timedelta

from schemas import AuditPlan
from tests.unit.review.review_bench import START, ReviewBench, verdict
from worker.review.audit_planner import NOTICE, AuditPlanner
from worker.review.audit_plans import AuditPlanReader
from worker.review.catalogue.audit_catalogue import audited_items
from worker.settings import Settings
from worker.trust.drawing import draw_point


def planner(bench: ReviewBench, **review: object) -> AuditPlanner:
    settings = Settings(review=bench.settings.review.model_copy(update=review))
    return AuditPlanner(settings, bench.topics, bench.redis, bench.catalogue, lambda: True, bench.clock)


def plans(bench: ReviewBench) -> list[AuditPlan]:
    return AuditPlanReader(bench.settings, bench.topics).read()


def test_a_plan_is_published_once_and_again_when_the_settings_change() -> None:
    bench = ReviewBench(audit_share=0.1)
    first = planner(bench)
    assert first.step() is not None
    assert first.step() is None
    assert planner(bench).step() is None  # another desk has the lease
    bench.redis.flushall()
    assert planner(bench).step() is None  # nothing has changed
    bench.redis.flushall()
    changed = planner(bench, audit_share=0.2).step()
    assert changed is not None
    assert changed.effective_from == START + NOTICE
    assert [plan.uniform_share for plan in plans(bench)] == [0.1, 0.2]


def test_with_a_budget_a_plan_follows_each_day() -> None:
    bench = ReviewBench(audit_share=0.1)
    daily = planner(bench, audits_per_day=50)
    assert daily.step() is not None
    bench.sleep(23 * 3600)
    assert daily.step() is None
    bench.sleep(3600)
    assert daily.step() is not None
    bench.now -= timedelta(days=30)  # the clock was ahead: those plans begin later
    assert daily.step() is not None
    assert len(plans(bench)) == 3


def test_a_desk_that_is_behind_makes_no_plan() -> None:
    bench = ReviewBench()
    behind = AuditPlanner(bench.settings, bench.topics, bench.redis, bench.catalogue, lambda: False, bench.clock)
    assert behind.step() is None
    assert plans(bench) == []


def test_images_are_drawn_by_the_plan_and_a_catalogue_made_anew_draws_the_same() -> None:
    bench = ReviewBench(audit_share=0.5)
    rest = {"name": "rest", "probability": 0.1}
    plan = AuditPlan.model_validate(
        {
            "effective_from": START + timedelta(hours=1),
            "made_at": START,
            "uniform_share": 0.5,
            "strata": [{"name": "below-3", "below": 3.0, "probability": 0.9}, rest],
        }
    )
    bench.publish("images.audit.plans", plan, key="effective_from")
    bench.publish("images.audit.plans", plan.model_copy(update={"strata": ()}), key="effective_from")  # no plan
    events = [f"e{number}" for number in range(60)]
    later = START + timedelta(hours=2)
    verdicts = [
        verdict(event, scores={"quality": 2.0 if place % 2 else 4.0}, judged_at=later if place % 3 else START)
        for place, event in enumerate(events)
    ]
    bench.publish("images.verdicts", *verdicts)
    bench.sleep(61)  # the projector looks for new plans once a minute
    bench.projector.catch_up()

    probability = {0: 0.5, 1: 0.9, 2: 0.1}
    kinds = [0 if place % 3 == 0 else 1 if place % 2 else 2 for place in range(60)]
    expected = {
        event: probability[kind]
        for event, kind in zip(events, kinds, strict=True)
        if draw_point(event) < probability[kind]
    }
    drawn = {
        view.item.event_id: view.item.audit
        for view in (bench.desk.item(f"verdict-{event}") for event in expected)
        if view.item.audit is not None
    }
    assert {event: draw.probability for event, draw in drawn.items()} == expected
    assert {draw.stratum for draw in drawn.values()} == {"all", "below-3", "rest"}

    anew = bench.new_catalogue()
    bench.new_projector(anew).step()
    assert audited_items(anew, START) == audited_items(bench.catalogue, START)
    assert len(audited_items(anew, START)) == len(expected)
    anew.close()
