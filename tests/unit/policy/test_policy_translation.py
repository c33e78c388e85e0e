"""A condition means after its translation to scalar variables what CEL makes of it as written, over maps."""

from typing import Any

import cel
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas import NO_PROVENANCE, ImageEvent, Scores
from worker.policy.expression import compile_expression
from worker.policy.vocabulary import FIELDS, EvaluationError

CONSTANTS: dict[str, Any] = {"poor": 2.5, "names": ("sd", 'it\'s "quoted"\\'), "flag": True, "low": -1}
ATOMS = st.sampled_from(
    [
        "scores.quality < constants.poor",
        "scores.quality -constants.low > 3.5",
        "event.priority - -1 > 50",
        "has(scores.correspondence)",
        "scores.correspondence < 2",
        "has( event . prompt )",
        'event.prompt == "event.prompt"',
        "event.prompt.contains('scores.quality') // event.tenant",
        "event.generator in constants.names",
        "[event.generator, event.tenant].exists(it, it in constants.names)",
        "event.tenant != r'event.id'",
        "event.tenant.startsWith('''acme''')",
        "has(event.attributes.n)",
        "event.attributes.n > 2",
        '"n" in event.attributes',
        'event.attributes["n"] == event.priority',
        "size(event.attributes) == 1",
        "event.image.kind == 's3'",
        "has(event.image.bucket)",
        "event.image.bucket == event.id",
        "constants.flag",
        "(scores.quality > 3 ? has(event.prompt) : event.priority > 10)",
        "scores.anchors[0] > 0.5",
        "has(event.tenant)",
    ]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("!({}\n)".format, inner),
        st.builds("({}\n) && ({}\n)".format, inner, inner),
        st.builds("({}\n) || ({}\n)".format, inner, inner),
    ),
    max_leaves=4,
)
EVENTS = st.builds(
    ImageEvent,
    schema=st.just("sluice.image-event/1"),
    id=st.just("event-1"),
    occurred_at=st.just("2026-01-01T00:00:00Z"),
    tenant=st.sampled_from(["default", "acme"]),
    image=st.sampled_from([{"kind": "s3", "bucket": "event-1", "key": "k"}, {"kind": "http", "url": "https://x.y"}]),
    prompt=st.none() | st.sampled_from(["event.prompt", "about scores.quality", ""]),
    generator=st.none() | st.sampled_from(["sd", 'it\'s "quoted"\\', "xl"]),
    priority=st.integers(0, 100),
    attributes=st.sampled_from([{}, {"n": 3}, {"n": "text"}, {"other": 1}]),
)
SCORES = st.builds(
    Scores,
    quality=st.floats(1, 5),
    correspondence=st.none() | st.floats(1, 5),
    anchors=st.none() | st.just((0.6, 0.1, 0.1, 0.1, 0.1)),
)


def as_written(source: str, event: ImageEvent, scores: Scores) -> Any:
    values: dict[str, Any] = {
        "event": event.model_dump(exclude_none=True),
        "scores": scores.model_dump(exclude_none=True),
        "constants": CONSTANTS,
    }
    try:
        return cel.evaluate(source, values)
    except Exception as error:  # noqa: BLE001 - whatever it is, the translated one must have no answer either
        return type(error)


@given(CONDITIONS, EVENTS, SCORES)
def test_a_translated_condition_answers_as_the_written_one(source: str, event: ImageEvent, scores: Scores) -> None:
    expected = as_written(source, event, scores)
    expression = compile_expression(source, CONSTANTS)
    context = cel.Context()
    for field in expression.reads:
        field.bind(context, field.of(event, scores, NO_PROVENANCE))
    try:
        result: Any = expression.holds(context)
    except EvaluationError:
        result = None
    assert result == (expected if isinstance(expected, bool) else None)


@given(CONDITIONS, EVENTS, SCORES, st.sets(st.sampled_from(sorted(map(str, FIELDS.values())))))
def test_an_answer_without_some_fields_is_the_answer_with_them(
    source: str, event: ImageEvent, scores: Scores, hidden: set[str]
) -> None:
    """What the replay rests on: where a condition has an answer with fields unknown, it is the true one."""
    expression = compile_expression(source, CONSTANTS)
    partial = cel.Context()
    for field in expression.reads:
        if str(field) not in hidden:
            field.bind(partial, field.of(event, scores, NO_PROVENANCE))
    try:
        result = expression.holds(partial)
    except EvaluationError:
        assume(False)
    assert result == as_written(source, event, scores)
