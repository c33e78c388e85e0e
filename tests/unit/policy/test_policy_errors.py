"""Each unusable policy gives an error with file, line and rule."""

import json
import time
from pathlib import Path

import pytest

from schemas import ImageEvent, Scores
from worker.policy import PolicyError, load_policy, parse_policy

GOOD = """\
schema: sluice.policy/1
version: "1"
constants: {poor: 2.0}
rules:
  - name: smeared
    when: scores.quality < constants.poor
    route: {action: review, queue: quality}
  - name: rest
    route: {action: pass}
"""


def when(condition: str) -> str:
    return GOOD.replace("scores.quality < constants.poor", condition)


def route(text: str) -> str:
    return GOOD.replace("{action: review, queue: quality}", text)


FILES = [
    ("rules: [", ":1: not YAML"),
    (GOOD.replace("  - name: rest", "\t- name: rest"), ":8: not YAML: found character"),
    (when('event.tenant == "a": b'), ":6: not YAML: mapping values are not allowed in this context"),
    (when("!has(event.prompt)"), ":6: not YAML: could not determine a constructor for the tag"),
    (GOOD + "version: 2\n", ":10: not YAML: the key 'version' twice"),
    ("- a\n", ":1: expected a mapping"),
    ("", ":1: schema: is missing"),
    (GOOD.replace("policy/1", "policy/2"), ":1: schema: should be 'sluice.policy/1', got 'sluice.policy/2'"),
    (GOOD.replace('"1"', "1"), ":2: version: expected text, got 1"),
    (GOOD.replace("constants: {poor: 2.0}", "thresholds: {poor: 2.0}"), ":3: thresholds: is not a known key"),
    (GOOD.replace("2.0", ".nan"), ":3: constants.poor"),
    (GOOD.replace("poor: 2.0", "Poor-er: 2.0"), ":3: constants"),
    (GOOD.replace("rules:", "rules: []\nx:"), ":4: rules: Tuple should have at least 1 item"),
    (GOOD + "failures: {queue: 'a b'}\n", ":10: failures.queue: should match pattern"),
    (GOOD + "tenants: {acme: {rule: []}}\n", ":10: tenants.acme.rule: is not a known key; did you mean 'rules'?"),
    (GOOD + "tenants: {acme: {constants: {por: 3}}}\n", ":10: tenants.acme.constants.por: there is no common constant"),
    (GOOD + "tenants: {acme: {constants: {poor: high}}}\n", ":10: tenants.acme.constants.poor: expected a number"),
    (GOOD.replace("2.0", "9" * 30), ":3: not YAML: a whole number of more than 64 bits"),
    (GOOD.replace("2.0", "9:" * 3000 + "9"), ":3: not YAML: a whole number of more than 64 bits"),
]
RULES = [
    (GOOD.replace("    when:", "    wen:"), ":6: rule 'smeared': wen: is not a known key; did you mean 'when'?"),
    (GOOD.replace("name: smeared", "name: 'a b'"), ":5: rule 'a b': name: should match pattern"),
    (GOOD.replace("- name: smeared\n    when", "- when"), ":5: rule 'number 1': name: is missing"),
    (when("5"), ":6: rule 'smeared': when: expected text, got 5"),
    (when("''"), ":6: rule 'smeared': when: should have at least 1 character"),
    (GOOD.replace("    route: {action: pass}\n", ""), ":8: rule 'rest': route: is missing"),
    (route("{action: hold}"), ":7: rule 'smeared': route.action: should be 'pass', 'review' or 'reject', got 'hold'"),
    (route("{action: review}"), ":7: rule 'smeared': route: action review needs a queue"),
    (route("{action: pass, queue: q}"), ":7: rule 'smeared': route: action pass takes no queue"),
    (route("{action: review, queue: 'no spaces'}"), ":7: rule 'smeared': route.queue: should match pattern"),
    (route("{action: review, queue: q, priority: 101}"), ":7: rule 'smeared': route.priority: should be less than"),
    (route("{action: pass, labels: bad}"), ":7: rule 'smeared': route.labels: expected a list"),
    (
        route("{action: pass, label: [bad]}"),
        ":7: rule 'smeared': route.label: is not a known key; did you mean 'labels'?",
    ),
    (GOOD.replace("name: rest", "name: smeared"), ":8: rule 'smeared': name: there is another rule of this name"),
    (
        GOOD.replace("    route: {action: pass}", "    when: scores.quality > 3\n    route: {action: pass}"),
        "no default",
    ),
    (
        GOOD + "  - {name: late, when: scores.quality > 4, route: {action: reject}}\n",
        ":10: rule 'late': no event reaches it: rule 'rest' has no `when` and takes everything",
    ),
]
CONDITIONS = [
    ("event.tenant.matches('(')", "when: matches(): '(' is no regular expression"),
    (
        "timestamp('2026-13-01T00:00:00Z') < event.occurred_at",
        "when: timestamp() cannot read \"'2026-13-01T00:00:00Z'\"",
    ),
    ("duration('1x') < duration('1s') && event.id == 'a'", "when: duration() cannot read"),
    ("int('x') < event.priority", "when: int() cannot read"),
    ("event.priority / 0 > 1", "a number is out of range, or a division by zero, for every event"),
    (
        "has(scores.anchors) && scores.anchors[7] > 0.5 || [1][2] == event.priority",
        "an index is beyond the end of a list",
    ),
    ("(" * 100 + "event.priority" + ")" * 100 + " > 1", "brackets or operators nested more than 96 deep"),
    ("scores.quality <", ":6: rule 'smeared': when: CEL syntax error at column 17: mismatched input '<EOF>'"),
    ("scores.quality < 2 and true", "when: CEL syntax error at column 20: mismatched input 'and'"),
    ("quality < 2", "when: quality: no such variable; there are event, scores and provenance"),
    ("score.quality < 2", "when: score: no such variable; did you mean 'scores'?"),
    ("scores.qualty < 2", "when: scores.qualty: no such field; did you mean 'quality'?"),
    ("event.promt == scores.quality", "when: event.promt: no such field; did you mean 'prompt'?"),
    (
        "event.image.buket == '' || scores.quality > 3",
        "when: event.image.buket: no such field; did you mean 'bucket'?",
    ),
    ("scores.quality < constants.por", "when: constants.por: no such field; did you mean 'poor'?"),
    ("scores == event", "when: scores must be used by field, such as scores.quality"),
    ("event['tenant'] == 'a'", "when: event must be used by field, such as event.id"),
    ("scores.quality", "when: must be true or false, but is a number"),
    ("event.tenant", "when: must be true or false, but is text"),
    ("scores.quality < 2 || event.priority", "when: cannot be evaluated: a value has the wrong type"),
    ("scores.quality < 'low'", "when: cannot be evaluated: a value has the wrong type"),
    ("event.tenant > 5", "when: cannot be evaluated: a value has the wrong type"),
    ("event.priority.contains('a')", "when: cannot be evaluated: contains() does not apply to a value of this type"),
    ("event.prompt.contains('a')", "when: event.prompt may be absent: write has(event.prompt) && ... before it"),
    ("scores.correspondence < 2", "when: scores.correspondence may be absent: write has(scores.correspondence)"),
    ("event.attributes.nsfw == true", "when: event.attributes.nsfw may be absent"),
    ("event.image.bucket == 'a'", "when: event.image.bucket may be absent"),
    (
        "has(event.prompt) || event.prompt == 'a'",
        "cannot be evaluated: event.prompt is absent; ask with has(...) first; an event may lack event.prompt",
    ),
    ("event.attributes['x-y'] == 1", 'event.attributes.x-y may be absent: write "x-y" in event.attributes && ...'),
    ("__import__('os') == event.tenant", "when: __import__(): no such function"),
    ("lower(event.tenant) == 'a'", "when: lower(): no such function"),
    ("event.tenant.startWith('a')", "when: startWith(): no such function; did you mean 'startsWith'?"),
    ("true", "reads none of event, scores and provenance"),
    ("1 < 2", "reads none of event, scores and provenance"),
    ("scores.quality < 2 " + "|| scores.quality < 3 " * 300, "has 6"),
    ("[1.0].exists(event, event > scores.quality)", "event: this name is taken"),
    ("[1.0].exists(event__id, event__id > scores.quality)", "event__id: this name is taken"),
]
TABLE = [*FILES, *RULES, *((when(f'"{text}"' if '"' not in text else f"'{text}'"), says) for text, says in CONDITIONS)]


@pytest.mark.parametrize(("text", "says"), TABLE, ids=[says[:60] for _, says in TABLE])
def test_an_unusable_policy_is_refused_with_the_place_and_what_is_expected(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    assert says in str(refused.value)
    assert all(line.startswith(str(path)) for line in str(refused.value).splitlines())


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        when("scores.qualty < 2").replace(
            "  - name: rest", "  - {name: b, when: x < 1, route: {action: pass}}\n  - name: rest"
        )
    )
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    first, second = str(refused.value).splitlines()
    assert ":6: rule 'smeared'" in first
    assert ":8: rule 'b'" in second


def test_the_line_of_a_condition_in_a_block_is_that_of_the_condition(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(when("|\n      scores.quality < 2 ||\n      scores.qualty < 3"))
    with pytest.raises(PolicyError, match=r"policy\.yaml:8: rule 'smeared': when: scores\.qualty"):
        load_policy(path)


def test_a_tenants_constants_may_break_a_common_rule(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    broken = GOOD.replace("poor: 2.0", "poor: [1.0, 2.0]").replace(
        "scores.quality < constants.poor", "scores.quality < constants.poor[1]"
    )
    path.write_text(broken)
    assert load_policy(path).version == "1"
    path.write_text(broken + "tenants: {acme: {constants: {poor: [a, b]}}}\n")
    with pytest.raises(PolicyError, match=":6: rule 'smeared': when: cannot be evaluated"):
        load_policy(path)


def test_a_policy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_policy(tmp_path / "nowhere.yaml")


def test_the_good_policy_of_this_table_is_good(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert load_policy(path).version == "1"


def test_macros_within_one_another_end_at_the_third_and_may_stand_side_by_side() -> None:
    lists = ["[1.0, 2.0]"] * 3
    nested = f"{lists[0]}.exists(x, {lists[1]}.all(y, {lists[2]}.exists(z, scores.quality < x + y + z)))"
    with pytest.raises(PolicyError, match=r"p\.yaml:6: rule 'smeared': when: exists\(\) is the third macro"):
        parse_policy(when(f"'{nested}'").encode(), "p.yaml")
    beside = (
        "[1.0].map(x, x).filter(x, x > 0.0).exists(x, [2.0].all(y, scores.quality < x + y)) && [1].exists(z, z == 1)"
    )
    parse_policy(when(f"'{beside}'").encode(), "p.yaml")


def test_a_condition_that_many_tenants_share_is_checked_once() -> None:
    tenants = "".join(f"  t{number}: {{constants: {{poor: 1.5}}}}\n" for number in range(2600))
    before = time.process_time()
    policy = parse_policy((GOOD + "tenants:\n" + tenants).encode(), "p.yaml")
    assert time.process_time() - before < 4
    event = ImageEvent.model_validate(
        {"id": "1", "occurred_at": "2026-01-01T00:00:00Z", "tenant": "t7", "image": {"kind": "file", "path": "a.png"}}
    )
    assert policy.route(event, Scores(quality=1.4)).rule == "smeared"
    assert policy.route(event, Scores(quality=1.6)).rule == "rest"


def test_common_rules_that_are_copied_for_too_many_tenants_are_refused_at_once() -> None:
    rules = "".join(
        f"  - {{name: r{number}, when: scores.quality < 2.0, route: {{action: pass}}}}\n" for number in range(99)
    )
    tenants = "".join(f"  t{number}: {{constants: {{poor: 1.5}}}}\n" for number in range(600))
    text = GOOD.replace("  - name: rest", rules + "  - name: rest") + "tenants:\n" + tenants
    with pytest.raises(PolicyError, match=r"p\.yaml:4: rules: 60701 rules, counting common ones.*at most 50000"):
        parse_policy(text.encode(), "p.yaml")


SLOW_PATTERNS = (
    r"\w{100}\d",
    r"(?:\w\W?){60}\d",
    r"(?:\b\w?\B?){200}\bx",
    r"(?:\p{L}?\p{N}?){100}x$",
    r".*a.{200}c",
    "[^a]?" * 500 + r"\bx",
    r"\B" * 200,
    r"(?:.|ab)?" * 100 + "x",
)
"""Each took 0.1 to 1 s of a processor for some prompt of 20,000 characters."""

NUMBERS = f"[{', '.join(['1.5'] * 300)}]"
WITH_LIST = GOOD.replace("constants: {poor: 2.0}", f"constants: {{poor: 2.0, many: [{', '.join(['1.5'] * 20_000)}]}}")
ENDLESS = [
    (f"{NUMBERS}.exists(x, {NUMBERS}.exists(y, scores.quality < x - y))", "takes about 1"),
    ("event.attributes.all(x, event.attributes.all(y, [1, 2].exists(z, true)))", "third macro within another"),
    ('[1, 2].exists(x, event.id.matches("((a{100}){100}){3}"))', "takes about"),
    ('has(event.prompt) && event.prompt.matches("(a{100}){100}")', "takes about 2"),
    ('has(event.prompt) && event.prompt.matches("a\\x7b5000}")', "takes about 10"),
    *(
        (f"has(event.prompt) && event.prompt.matches({json.dumps(pattern)})", "takes about")
        for pattern in SLOW_PATTERNS
    ),
    ('has(event.attributes.text) && event.attributes.text.matches("[ab]*a[ab]{200}c")', "takes about 1"),
    ("[1.5" + ", 1.5" * 700 + "].map(x, has(event.prompt) ? event.prompt : event.id).size() > 3", "takes about"),
    ("has(event.generator) && event.id.matches(event.generator)", "not one that an event brings"),
    ("event.attributes.exists(p, event.id.matches(p))", "not one that an event brings"),
    ("[1].exists(p, p == 1) || event.attributes.exists(p, event.id.matches(p))", "not one that an event brings"),
    (
        "constants.many.exists(p, p > 1.0) || event.attributes.all(p, event.id.matches(p))",
        "not one that an event brings",
    ),
    (
        "has(event.attributes.constants) && has(event.attributes.constants.many) && "
        "event.attributes.constants.many.exists(p, event.id.matches(p))",
        "not one that an event brings",
    ),
    ("scores.quality in constants.many", "characters with its constants; at most 65536"),
]


@pytest.mark.parametrize(("condition", "says"), ENDLESS, ids=[says[:30] + text[:20] for text, says in ENDLESS])
def test_a_condition_that_would_hold_a_worker_is_refused_at_once_with_its_line(condition: str, says: str) -> None:
    before = time.process_time()
    with pytest.raises(PolicyError, match=r"^p\.yaml:6: rule 'smeared': when: ") as refused:
        parse_policy(WITH_LIST.replace("scores.quality < constants.poor", json.dumps(condition)).encode(), "p.yaml")
    assert says in str(refused.value)
    assert time.process_time() - before < 4


EVERYDAY_PATTERNS = (
    r"(?i)\b(blood|gore|knife|weapon)s?\b",
    "[a-z0-9]{1,64}@[a-z0-9]{1,64}",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"(?i)https?://[^\s/$.?#].[^\s]*",
    r"\+?\d{1,3}[ -]?\(?\d{3}\)?[ -]?\d{3}[ -]?\d{4}",
    r"\b[0-9a-fA-F]{64}\b",
    r"(?i)\bknife\b\W+(?:\w+\W+){0,5}?\bchild\b",
    r"(?is).*blood.*knife.*",
    r"(?i)\b(\x{43d}\x{043e}\x{0436}|нож|кровь)\b",
    "(?i)" + "|".join(r"\b" + f"word{number}" + r"\b" for number in range(200)),
    "(?i)" + "|".join(f"f[^a-z]*u{number}[^a-z]*c[^a-z]*k" for number in range(80)),
    "(?i)" + "|".join(f"f{number}" + r"\W*u\W*c\W*k" for number in range(20)),
)


def test_what_platforms_ask_of_lists_and_patterns_is_taken() -> None:
    banned = ", ".join(f"word-{number}" for number in range(300))
    for condition in (
        "has(event.attributes.tags) && event.attributes.tags.exists(t, constants.banned.exists(b, t.contains(b)))",
        "has(event.prompt) && constants.banned.exists(b, event.prompt.contains(b))",
        "has(event.prompt) && constants.banned.exists(b, event.prompt.matches(b))",
        *(f"has(event.prompt) && event.prompt.matches({json.dumps(pattern)})" for pattern in EVERYDAY_PATTERNS),
        'has(event.prompt) && event.prompt.matches("[ab]*a[ab]{200}c")',
        'has(event.attributes.text) && event.attributes.text.matches("(?i)\\b(blood|gore|knife|weapon)s?\\b")',
        "event.tenant in constants.banned",
    ):
        text = GOOD.replace("poor: 2.0", f"poor: 2.0, banned: [{banned}]")
        parse_policy(text.replace("scores.quality < constants.poor", json.dumps(condition)).encode(), "p.yaml")


def test_a_policy_whose_conditions_take_too_long_together_is_refused() -> None:
    all_fields = " && ".join(
        f"has({field})"
        for field in ("event.prompt", "event.generator", "event.content_type", "event.sha256", "scores.anchors")
    )
    rules = "".join(
        f'  - {{name: r{number}, when: "{all_fields} && scores.quality < 1.{number}", route: {{action: pass}}}}\n'
        for number in range(1200)
    )
    before = time.process_time()
    with pytest.raises(PolicyError, match=r"^p\.yaml:4: rules: its conditions take too long to check"):
        parse_policy(GOOD.replace("  - name: rest", rules + "  - name: rest").encode(), "p.yaml")
    assert time.process_time() - before < 10


def test_a_route_with_more_labels_than_a_verdict_should_carry_is_refused() -> None:
    labels = ", ".join(f"l{number}" for number in range(33))
    with pytest.raises(PolicyError, match=r"p\.yaml:7: rule 'smeared': route\.labels: Tuple should have at most 32"):
        parse_policy(route(f"{{action: pass, labels: [{labels}]}}").encode(), "p.yaml")


def test_of_many_problems_the_first_are_told_and_the_others_counted() -> None:
    rules = "".join(f"  - {{name: r{number}, when: x, route: {{action: pass}}}}\n" for number in range(70))
    with pytest.raises(PolicyError) as caught:
        parse_policy(GOOD.replace("  - name: rest", rules + "  - name: rest").encode(), "p.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("p.yaml:8: rule 'r0'")
    assert lines[50:] == ["p.yaml: and 20 more problems"]


def test_each_absence_of_what_a_rule_reads_is_tried_for_many_fields_too() -> None:
    fields = ["event.generator", "event.content_type", "event.sha256", "scores.coarse_share", "scores.correspondence"]
    all_there = " && ".join(f"has({field})" for field in fields)
    with pytest.raises(PolicyError, match="must be true or false, but is text"):
        parse_policy(when(f"'{all_there} || has(event.prompt) ? true : event.id'").encode(), "p.yaml")
