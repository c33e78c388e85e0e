"""Whether the images of a tenant and generator have changed."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Failure, FailureReason, Verdict
from tests.unit.trust.test_trust_misses import NEW, OLD, START, verdict
from worker.trust.drift import DriftComparison, DriftCounts, DriftWindows, _kolmogorov, _likelihood_ratio, alarmed

NOW = START + timedelta(days=35)
WINDOWS = DriftWindows.ending(NOW)
LONG_AGO, LATELY = NOW - timedelta(days=20), NOW - timedelta(days=2)


def compared(*verdicts: Sequence[Verdict]) -> tuple[DriftComparison, ...]:
    counts = DriftCounts(WINDOWS)
    for each in verdicts:
        for one in each:
            counts.add(one)
    return counts.compare()


def images(
    count: int,
    mean: float,
    *,
    lately: bool,
    seed: int = 1,
    generator: str = "sd",
    model: str = OLD,
    tenant: str = "acme",
) -> list[Verdict]:
    qualities = np.clip(np.random.default_rng(seed).normal(mean, 0.6, count), 1, 5)
    at = LATELY if lately else LONG_AGO
    return [
        verdict(number, quality=float(q), judged_at=at, generator=generator, model=model, tenant=tenant)
        for number, q in enumerate(qualities)
    ]


def failed(count: int, *, lately: bool) -> list[Verdict]:
    at = LATELY if lately else LONG_AGO
    failure = Failure(reason=FailureReason.FETCH_FAILED, message="gone")
    more = {"status": "failed", "scores": None, "failure": failure}
    return [verdict(number, action="review", judged_at=at, **more) for number in range(count)]


def test_images_of_another_quality_raise_an_alarm_that_names_some_of_them() -> None:
    before = images(800, 3.5, lately=False)
    now = images(200, 3.5, lately=True, seed=2)
    worse = [verdict(5000 + number, quality=1.5, judged_at=LATELY, generator="sd") for number in range(80)]
    (found,) = compared(before, now, worse)
    (alarm,) = found.alarms
    assert (alarm.kind, found.now.images, found.before.images) == ("quality", 280, 800)
    assert alarm.size > 0.2
    assert alarm.chance < 0.001
    assert alarm.examples[0] == "e5079"
    assert found.now.mean_quality is not None
    assert found.before.mean_quality is not None
    assert found.now.mean_quality < found.before.mean_quality - 0.4


def test_the_same_images_raise_none() -> None:
    (found,) = compared(images(800, 3.5, lately=False), images(300, 3.5, lately=True, seed=2))
    assert found.compared
    assert found.alarms == ()


def test_failures_that_become_more_frequent_raise_an_alarm() -> None:
    (found,) = compared(images(800, 3.5, lately=False), images(200, 3.5, lately=True), failed(20, lately=True))
    (alarm,) = found.alarms
    assert alarm.kind == "failures"
    assert found.now.reasons == {"fetch_failed": 20}


def test_a_generator_that_did_not_come_before_is_new_but_not_to_a_new_tenant_or_model() -> None:
    before = images(100, 3.5, lately=False)
    new = images(60, 3.0, lately=True, generator="xl")
    found = compared(before, new, images(60, 3.0, lately=True, generator="xl", tenant="globex"))
    assert [(each.cell.tenant, [alarm.kind for alarm in each.alarms]) for each in found] == [
        ("acme", ["new"]),
        ("globex", []),
    ]
    (other_model,) = compared(before, images(60, 2.0, lately=True, model=NEW))
    assert (other_model.compared, other_model.alarms) == (False, ())


def test_alarms_are_found_by_tenant_model_and_generator() -> None:
    found = compared(images(100, 3.5, lately=False), images(100, 2.0, lately=True))
    assert len(alarmed(found, "acme", OLD)) == len(alarmed(found, "acme", OLD, "sd")) == 1
    assert alarmed(found, "acme", OLD, "xl") == alarmed(found, "acme", NEW) == alarmed(found, "globex", OLD) == ()


def test_few_images_and_times_outside_of_the_windows_are_not_compared() -> None:
    ahead = [each.model_copy(update={"judged_at": NOW + timedelta(days=9)}) for each in images(60, 1.5, lately=True)]
    (found,) = compared(images(100, 3.5, lately=False), images(49, 1.5, lately=True), ahead)
    assert (found.now.images, found.compared, found.alarms) == (49, False, ())


def test_names_from_outside_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.trust.drift.MOST_CELLS", 3)
    made_up = [verdict(number, judged_at=LATELY, generator=f"g{number}") for number in range(200)]
    found = compared(made_up)
    assert len(found) == 4
    assert found[0].now.images == 197
    assert found[0].cell.generator == "other"


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(120)))
def test_the_order_of_verdicts_changes_nothing(order: list[int]) -> None:
    verdicts = [*images(60, 3.5, lately=False), *images(60, 2.5, lately=True)]
    assert compared([verdicts[number] for number in order]) == compared(verdicts)


def test_streams_that_do_not_change_raise_alarms_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(3)
    chances = []
    for _ in range(2000):
        first, second = np.sort(rng.random(400)), np.sort(rng.random(100))
        grid = np.concatenate([first, second])
        distance = np.searchsorted(first, grid, "right") / 400 - np.searchsorted(second, grid, "right") / 100
        chances.append(_kolmogorov(float(np.abs(distance).max()), 400, 100))
    for level in (0.01, 0.1, 0.5):
        assert np.mean(np.array(chances) <= level) <= level + 0.02
    assert _likelihood_ratio((10, 20), (100, 100)) == pytest.approx(0.0458647277)  # scipy.stats.chi2_contingency
