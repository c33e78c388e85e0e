"""What a new policy would have made of past verdicts."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ImageEvent, Verdict
from worker.policy import Policy, load_policy
from worker.policy.replay import EXAMPLES_A_KIND, replay

DIGEST = f"sha256:{'0' * 64}"


def load(tmp_path: Path, *rules: str) -> Policy:
    path = tmp_path / "policy.yaml"
    lines = "".join(f"  - {rule}\n" for rule in [*rules, "{name: rest, route: {action: pass}}"])
    path.write_text(f'schema: sluice.policy/1\nversion: "2"\nrules:\n{lines}')
    return load_policy(path)


def verdict(quality: float | None, route: dict[str, Any] | None = None, **fields: Any) -> Verdict:
    base: dict[str, Any] = {
        "verdict_id": "verdict-1",
        "event_id": "event-1",
        "tenant": "default",
        "occurred_at": "2026-01-01T00:00:00Z",
        "judged_at": "2026-01-01T00:00:01Z",
        "image": {"kind": "s3", "bucket": "images", "key": "a.png"},
        "content_hash": DIGEST,
        "status": "failed" if quality is None else "scored",
        "scores": None if quality is None else {"quality": quality},
        "route": {"action": "pass", "rule": "rest", **(route or {})},
        "model": DIGEST,
        "policy": DIGEST,
        "source": {"topic": "images.in", "partition": 0, "offset": 0},
    }
    return Verdict.model_validate({**base, **fields})


REVIEW = {"action": "review", "queue": "quality", "rule": "poor"}
POOR = "{name: poor, when: scores.quality < 2.5, route: {action: review, queue: quality}}"


def test_counts_before_and_after_and_flips_by_kind(tmp_path: Path) -> None:
    past = [verdict(1.5, REVIEW), verdict(2.2, event_id="moved"), verdict(3), verdict(4, REVIEW, event_id="freed")]
    result = replay(load(tmp_path, POOR), past)
    assert (result.total, result.replayed) == (4, 4)
    assert result.before == {"pass": 2, "review:quality": 2}
    assert result.after == {"pass": 2, "review:quality": 2}
    assert result.flips == {("pass", "review:quality"): 1, ("review:quality", "pass"): 1}
    assert [(flip.event_id, flip.quality, flip.rule_before, flip.rule_after) for flip in result.examples] == [
        ("moved", 2.2, "rest", "poor"),
        ("freed", 4.0, "poor", "rest"),
    ]


def test_examples_are_few_of_each_kind(tmp_path: Path) -> None:
    past = [verdict(1.0) for _ in range(100)] + [verdict(4, REVIEW) for _ in range(2)]
    result = replay(load(tmp_path, POOR), past)
    assert result.flips["pass", "review:quality"] == 100
    assert len(result.examples) == EXAMPLES_A_KIND + 2


def test_another_priority_or_label_is_a_change_but_no_flip(tmp_path: Path) -> None:
    new = "{name: poor, when: scores.quality < 2.5, route: {action: review, queue: quality, priority: 90}}"
    result = replay(load(tmp_path, new), [verdict(2, REVIEW), verdict(2, {**REVIEW, "priority": 90})])
    assert (result.changed, result.flips) == (1, {})


def test_verdicts_of_failures_are_counted_apart(tmp_path: Path) -> None:
    result = replay(load(tmp_path, POOR), [verdict(None), verdict(4)])
    assert (result.total, result.failed, result.replayed) == (2, 1, 1)


@pytest.mark.parametrize(
    "condition",
    [
        'event.tenant == "default"',
        'event.id == "event-1"',
        'event.occurred_at < timestamp("2026-02-01T00:00:00Z")',
        'has(event.generator) && event.generator == "sd"',
        'event.image.kind == "s3" && has(event.image.bucket) && event.image.bucket == "images"',
        "!has(scores.correspondence)",
    ],
)
def test_what_verdicts_carry_is_replayed(tmp_path: Path, condition: str) -> None:
    rule = f"{{name: it, when: '{condition}', route: {{action: reject}}}}"
    result = replay(load(tmp_path, rule), [verdict(3, generator="sd")])
    assert result.after == {"reject": 1}


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ('has(event.prompt) && event.prompt.contains("cat")', "event.prompt"),
        ("event.priority > 90", "event.priority"),
        ("has(event.attributes.nsfw) && event.attributes.nsfw == true", "event.attributes"),
        ("!has(event.sha256)", "event.sha256"),
        ("has(event.content_type)", "event.content_type"),
    ],
)
def test_a_rule_over_what_verdicts_lack_is_told_and_its_verdicts_are_left_out(
    tmp_path: Path, condition: str, reads: str
) -> None:
    rule = f"{{name: it, when: '{condition}', route: {{action: reject}}}}"
    result = replay(load(tmp_path, rule), [verdict(3), verdict(4)])
    assert result.undecided == {"it": 2}
    assert result.undecided_reads == {"it": (reads,)}
    assert (result.total, result.replayed, result.after) == (2, 0, {})


def test_such_a_rule_is_replayed_where_its_other_parts_decide(tmp_path: Path) -> None:
    rule = '{name: it, when: scores.quality < 2 && has(event.prompt) && event.prompt == "a", route: {action: reject}}'
    result = replay(load(tmp_path, rule), [verdict(1.5), verdict(3), verdict(4)])
    assert result.undecided == {"it": 1}
    assert result.after == {"pass": 2}


def test_the_reference_of_an_inline_image_is_not_known(tmp_path: Path) -> None:
    rule = '{name: it, when: event.image.kind == "inline", route: {action: reject}}'
    result = replay(load(tmp_path, rule), [verdict(3, image=None), verdict(3)])
    assert (result.undecided, result.after) == ({"it": 1}, {"pass": 1})


def test_tenants_are_replayed_by_their_own_rules(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        'schema: sluice.policy/1\nversion: "1"\nconstants: {poor: 2.0}\nrules:\n'
        "  - {name: poor, when: scores.quality < constants.poor, route: {action: reject}}\n"
        "  - {name: rest, route: {action: pass}}\n"
        "tenants: {acme: {constants: {poor: 4.0}}}\n"
    )
    result = replay(load_policy(path), [verdict(3), verdict(3, tenant="acme")])
    assert result.after == {"pass": 1, "reject": 1}


@given(
    st.floats(1, 5),
    st.none() | st.floats(1, 5),
    st.none() | st.sampled_from(["sd", "xl"]),
    st.none() | st.text(max_size=5),
    st.integers(0, 100),
    st.sampled_from(["default", "acme"]),
)
def test_a_replayed_verdict_is_routed_as_its_event_would_be(
    mixed: Policy,
    quality: float,
    fit: float | None,
    generator: str | None,
    prompt: str | None,
    priority: int,
    tenant: str,
) -> None:
    event = ImageEvent.model_validate(
        {
            "id": "event-1",
            "occurred_at": "2026-01-01T00:00:00Z",
            "image": {"kind": "s3", "bucket": "images", "key": "a.png"},
            **{"generator": generator, "prompt": prompt, "priority": priority, "tenant": tenant},
        }
    )
    past = verdict(quality, {"priority": priority}, generator=generator, tenant=tenant)
    assert past.scores is not None
    scores = past.scores.model_copy(update={"correspondence": fit})
    result = replay(mixed, [past.model_copy(update={"scores": scores})])
    after = mixed.route(event, scores)
    expected = after.action if after.queue is None else f"{after.action}:{after.queue}"
    assert result.undecided or result.after == {expected: 1}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load(
        tmp_path_factory.mktemp("policy"),
        '{name: a, when: scores.quality < 2 && has(event.prompt) && event.prompt != "", route: {action: reject}}',
        '{name: b, when: has(event.generator) && event.generator == "sd", route: {action: review, queue: sd}}',
        "{name: c, when: has(scores.correspondence) && scores.correspondence < 2, route: {action: review, queue: fit}}",
        '{name: d, when: event.tenant == "acme" || event.priority > 90, route: {action: review, queue: acme}}',
    )
