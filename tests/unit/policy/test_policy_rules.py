"""Where a policy sends images."""

import contextlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ImageEvent, Scores
from worker.policy import Policy, PolicyError, load_policy
from worker.policy.checks import check_expression
from worker.policy.vocabulary import FIELDS

HEAD = 'schema: sluice.policy/1\nversion: "1"\n'


def event(**fields: Any) -> ImageEvent:
    base = {
        "id": "event-1",
        "occurred_at": "2026-01-01T00:00:00Z",
        "image": {"kind": "s3", "bucket": "b", "key": "k.png"},
    }
    return ImageEvent.model_validate({**base, **fields})


@pytest.fixture
def policy(tmp_path: Path) -> Any:
    """Loads a policy from the text below its head."""

    def load(text: str) -> Policy:
        path = tmp_path / "policy.yaml"
        path.write_text(HEAD + dedent(text), "utf-8")
        return load_policy(path)

    return load


def rule_for(policy: Any, when: str) -> Policy:
    """A policy that rejects where the condition holds."""
    quoted = when.replace("'", "''")
    return policy(  # type: ignore[no-any-return]
        f"rules:\n- {{name: it, when: '{quoted}', route: {{action: reject}}}}\n"
        "- {name: rest, route: {action: pass}}\n"
    )


def test_the_first_rule_that_holds_decides(policy: Any) -> None:
    loaded = policy("""
        rules:
          - {name: bad, when: scores.quality < 2, route: {action: reject, labels: [bad, auto]}}
          - {name: poor, when: scores.quality < 3, route: {action: review, queue: quality, priority: 60}}
          - {name: rest, route: {action: pass}}
    """)
    rejected, reviewed, passed = (loaded.route(event(), Scores(quality=quality)) for quality in (1.5, 2, 3))
    assert (rejected.action, rejected.labels, rejected.rule) == ("reject", ("bad", "auto"), "bad")
    assert (reviewed.action, reviewed.queue, reviewed.priority, reviewed.rule) == ("review", "quality", 60, "poor")
    assert (passed.action, passed.queue, passed.rule) == ("pass", None, "rest")


def test_a_rule_without_a_priority_keeps_the_events(policy: Any) -> None:
    loaded = policy("rules: [{name: all, route: {action: review, queue: q}}]")
    assert [loaded.route(event(priority=each), Scores(quality=3)).priority for each in (0, 42, 100)] == [0, 42, 100]


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ('event.tenant == "default" && event.id == "event-1"', True),
        ("event.priority >= 50", True),
        ('event.tenant != "event.nothing && scores.qualty" // or event.nothing', True),
        ('event . tenant == r"default"', True),
        ('event.occurred_at < timestamp("2026-01-02T00:00:00Z")', True),
        ('has(event.prompt) && event.prompt.contains("cat")', True),
        ('has(event.prompt) && event.prompt.matches("(?i)CAT")', True),
        ('has(event.generator) && event.generator in ["sd", "xl"]', True),
        ("has(event.content_type)", False),
        ("!has(event.sha256)", True),
        ('event.image.kind == "s3" && has(event.image.bucket) && event.image.bucket == "b"', True),
        ("has(event.image.url)", False),
        ("has(event.attributes.nsfw) && event.attributes.nsfw == true", True),
        ('"nsfw" in event.attributes && event.attributes["nsfw"] == true', True),
        ("has(event.attributes.age) && event.attributes.age > 3", False),
        ("size(event.attributes) == 2", True),
        ('has(event.attributes.tags) && event.attributes.tags.exists(tag, tag == "b")', True),
        ("has(scores.correspondence) && scores.correspondence < 2", True),
        ("has(scores.anchors) && scores.anchors[0] > 0.5", True),
        ("has(scores.anchors) && scores.anchors.exists(p, p > 0.9)", False),
        ("has(scores.coarse_share)", False),
        ('scores.quality > 2 ? false : event.tenant != ""', True),
    ],
)
def test_rules_see_the_event_and_its_scores(policy: Any, when: str, holds: bool) -> None:
    judged = event(prompt="a cat", generator="sd", attributes={"nsfw": True, "tags": ["a", "b"]})
    scores = Scores(quality=1.5, correspondence=1.2, anchors=(0.6, 0.3, 0.1, 0, 0))
    assert rule_for(policy, when).route(judged, scores).action == ("reject" if holds else "pass")


@pytest.mark.parametrize("name", ["prompt", "generator", "content_type", "sha256"])
def test_what_an_event_lacks_is_absent(policy: Any, name: str) -> None:
    loaded = rule_for(policy, f"has(event.{name})")
    value = "0" * 64
    assert loaded.route(event(**{name: value}), Scores(quality=3)).action == "reject"
    assert loaded.route(event(), Scores(quality=3)).action == "pass"


def test_the_bytes_of_an_inline_image_are_not_shown_to_rules(policy: Any) -> None:
    loaded = rule_for(policy, "size(event.image) > 1")
    inline = event(image={"kind": "inline", "bytes": "aGVsbG8="})
    assert loaded.route(inline, Scores(quality=3)).action == "pass"


TENANTS = """
    constants: {poor: 2.0, banned: [a], note: 'say "no" to \\ and é'}
    rules:
      - {name: poor, when: scores.quality < constants.poor, route: {action: reject}}
      - {name: banned, when: has(event.generator) && event.generator in constants.banned, route: {action: reject}}
      - {name: rest, route: {action: pass}}
    failures: {queue: broken, priority: 80}
    tenants:
      acme:
        constants: {poor: 3.0, banned: [b, c]}
        rules:
          - {name: vip, when: event.priority > 90, route: {action: pass}}
        failures: {queue: acme-broken}
      strict:
        rules:
          - {name: all, route: {action: review, queue: strict}}
"""


def test_a_tenants_rules_come_before_the_common_ones(policy: Any) -> None:
    loaded = policy(TENANTS)
    assert loaded.route(event(tenant="acme", priority=95), Scores(quality=1)).rule == "acme/vip"
    assert loaded.route(event(tenant="acme", priority=50), Scores(quality=1)).rule == "poor"
    assert loaded.route(event(tenant="strict"), Scores(quality=5)).rule == "strict/all"
    assert loaded.route(event(tenant="other", priority=95), Scores(quality=1)).rule == "poor"


def test_a_tenants_constants_replace_the_common_ones_in_all_its_rules(policy: Any) -> None:
    loaded = policy(TENANTS)
    assert loaded.route(event(), Scores(quality=2.5)).rule == "rest"
    assert loaded.route(event(tenant="acme"), Scores(quality=2.5)).rule == "poor"
    assert loaded.route(event(generator="a"), Scores(quality=4)).rule == "banned"
    assert loaded.route(event(generator="a", tenant="acme"), Scores(quality=4)).rule == "rest"
    assert loaded.route(event(generator="c", tenant="acme"), Scores(quality=4)).rule == "banned"


def test_failures_go_to_review_by_tenant(policy: Any) -> None:
    loaded = policy(TENANTS)
    common, acme = loaded.failure_route("other", 10), loaded.failure_route("acme", 10)
    assert (common.action, common.queue, common.priority, common.rule) == ("review", "broken", 80, "failure")
    assert (acme.action, acme.queue, acme.priority) == ("review", "acme-broken", 10)


@pytest.mark.parametrize(
    "attributes",
    [{"a": ["x"] * 1001}, {"a": {str(number): [1] for number in range(600)}}, {"a": "x" * 70_000}, {"k" * 70_000: 1}],
)
def test_attributes_that_would_keep_a_rule_busy_have_no_answer_from_rules_that_read_them(
    policy: Any, attributes: dict[str, Any]
) -> None:
    looks = rule_for(policy, 'has(event.attributes.a) && event.attributes.a.exists(x, x == "b")')
    with pytest.raises(PolicyError, match=r"rule 'it': event\.attributes holds more than 1000 values or 65536 char"):
        looks.route(event(attributes=attributes), Scores(quality=3))
    assert rule_for(policy, "scores.quality < 2").route(event(attributes=attributes), Scores(quality=3)).rule == "rest"


def test_attributes_of_a_thousand_values_are_looked_through(policy: Any) -> None:
    looks = rule_for(policy, 'has(event.attributes.a) && event.attributes.a.exists(x, x == "b")')
    many = {"a": ["x"] * 997 + ["b"]}
    assert looks.route(event(attributes=many), Scores(quality=3)).rule == "it"


@given(st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans())
def test_a_constant_means_its_value_whatever_it_holds(value: Any) -> None:
    same = check_expression("constants.it == constants.it && scores.quality > 0.0", {"it": value})
    context = cel.Context()
    FIELDS["scores", "quality"].bind(context, 3.0)
    assert same.holds(context)


@pytest.mark.parametrize(
    ("when", "attributes", "says"),
    [
        ("has(event.attributes.n) && event.attributes.n > 5", {"n": "hunter2"}, "a value has the wrong type"),
        ("has(event.attributes.n) && event.attributes.n", {"n": "hunter2"}, "a value has the wrong type"),
        (
            "has(event.attributes.n) ? event.attributes.n : false",
            {"n": "hunter2"},
            "must be true or false, but is text",
        ),
        ("has(event.attributes.n) && event.attributes.n[3] == 1", {"n": [1]}, "an index is beyond the end"),
        ("has(event.attributes.n) && int(event.attributes.n) > 1", {"n": "hunter2"}, "int() cannot read this value"),
        ("has(event.attributes.n) && event.attributes.n.startsWith('a')", {"n": 5}, "startsWith() does not apply"),
        ("has(event.attributes.n) && event.attributes.n / 0 == 1", {"n": 5}, "division by zero"),
        ("size(event.attributes) == 1", {"n": 10**4000}, "event.attributes has a value that CEL cannot hold"),
    ],
)
def test_a_rule_without_an_answer_fails_closed_and_repeats_nothing_of_the_event(
    policy: Any, when: str, attributes: dict[str, Any], says: str
) -> None:
    loaded = rule_for(policy, when)
    with pytest.raises(PolicyError) as failed:
        loaded.route(event(attributes=attributes), Scores(quality=3))
    assert str(failed.value).startswith("rule 'it': ")
    assert says in str(failed.value)
    assert "hunter2" not in str(failed.value)


def test_rules_after_the_one_that_holds_are_not_tried(policy: Any) -> None:
    loaded = policy("""
        rules:
          - {name: bad, when: scores.quality < 2, route: {action: reject}}
          - {name: odd, when: has(event.attributes.n) && event.attributes.n > 5, route: {action: reject}}
          - {name: rest, route: {action: pass}}
    """)
    assert loaded.route(event(attributes={"n": "text"}), Scores(quality=1)).rule == "bad"
    with pytest.raises(PolicyError, match="rule 'odd'"):
        loaded.route(event(attributes={"n": "text"}), Scores(quality=3))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "n"]), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(
        HEAD
        + dedent("""
            rules:
              - {name: a, when: has(event.attributes.a) && event.attributes.a > 5, route: {action: reject}}
              - {name: b, when: has(event.attributes.b) && event.attributes.b.matches("(a+)+"), route: {action: reject}}
              - {name: n, when: has(event.attributes.n) && -event.attributes.n % 7 == 3, route: {action: reject}}
              - {name: p, when: has(event.prompt) && int(event.prompt) > event.priority, route: {action: reject}}
              - {name: rest, route: {action: pass}}
        """)
    )
    return load_policy(path)


@given(st.dictionaries(st.sampled_from(["a", "b", "n", "x"]), JSON), st.none() | st.text())
def test_any_event_is_routed_or_refused(demanding: Policy, attributes: dict[str, Any], prompt: str | None) -> None:
    judged = event(attributes=attributes, prompt=prompt)
    with contextlib.suppress(PolicyError):
        assert demanding.route(judged, Scores(quality=3)).action in ("pass", "reject")


class TestTheShippedPolicy:
    def test_rejects_nothing_and_reviews_the_worst_first(self) -> None:
        policy = load_policy(None)
        routes = [policy.route(event(), Scores(quality=tenth / 10)) for tenth in range(10, 51)]
        assert {route.action for route in routes} == {"pass", "review"}
        priorities = [route.priority if route.action == "review" else -1 for route in routes]
        assert priorities == sorted(priorities, reverse=True)
        assert routes[0].labels == ("broken",)
        assert routes[-1].action == "pass"

    def test_reviews_a_good_image_that_is_not_what_was_asked_for(self) -> None:
        route = load_policy(None).route(event(), Scores(quality=4.5, correspondence=1.2))
        assert (route.queue, route.labels) == ("prompt", ("off-prompt",))


def test_the_digest_is_of_what_the_policy_says(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        path = tmp_path / "policy.yaml"
        path.write_text(HEAD + text)
        return load_policy(path).digest

    plain = digest(
        "rules: [{name: a, when: scores.quality < 2, route: {action: reject}}, {name: b, route: {action: pass}}]"
    )
    laid_out = digest(
        "# a comment\nrules:\n- when: 'scores.quality < 2'\n  name: a\n  route: {action: reject}\n"
        "- name: b\n  route:\n    action: pass\n"
    )
    stricter = digest(
        "rules: [{name: a, when: scores.quality < 3, route: {action: reject}}, {name: b, route: {action: pass}}]"
    )
    assert plain == laid_out != stricter
    assert plain.startswith("sha256:")
    assert len(plain) == 71
