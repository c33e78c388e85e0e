"""What the outbox writes can be read back as the contracts say, fits into a message, and has ids that repeat."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import (
    DeadLetter,
    Failure,
    FailureReason,
    ImageEvent,
    InlineReference,
    Provenance,
    ReviewItem,
    Route,
    RouteOverload,
    S3Reference,
    Scores,
    Source,
    Verdict,
)
from schemas.image_event import FileReference, HttpReference
from worker.intake.log import Partition, Record
from worker.outbox import Identity, Outbox, SourceFields, TimingFields
from worker.settings import TopicSettings

MODEL, POLICY = "sha256:" + "a" * 64, "sha256:" + "b" * 64
CONTENT = "sha256:" + "c" * 64
NOW = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)
SOURCE: SourceFields = {"topic": "images.in", "partition": 2, "offset": 40, "index": 0}
TIMINGS: TimingFields = {"fetch_ms": 0.0, "decode_ms": 0.0, "engine_ms": 0.0, "total_ms": 0.0}
SCORES = Scores(quality=1.5, anchors=(0.6, 0.3, 0.1, 0.0, 0.0), coarse_share=0.4)
REVIEW = Route(action="review", queue="smeared", priority=80, labels=("texture",), rule="poor")
LIMIT = 1_000_000


def an_outbox(policy: str = POLICY) -> Outbox:
    return Outbox(TopicSettings(), Identity(MODEL, policy), max_message_bytes=LIMIT, now=lambda: NOW)


def an_event(image: S3Reference | InlineReference | None = None) -> ImageEvent:
    return ImageEvent(
        id="e1", occurred_at=NOW, tenant="acme", image=image or S3Reference(bucket="b", key="k"), prompt="a cat"
    )


def scored(route: Route, event: ImageEvent | None = None, outbox: Outbox | None = None) -> dict[str, bytes]:
    outputs = (outbox or an_outbox()).scored(
        event or an_event(), SOURCE, CONTENT, SCORES, {"coarse": b"\x00<"}, route, TIMINGS, cached=False
    )
    assert {output.key for output in outputs} == {b"e1"}
    return {output.topic: output.value for output in outputs}


def test_an_image_that_passes_gets_a_verdict_and_nothing_else() -> None:
    written = scored(Route(action="pass", rule="default"))
    assert list(written) == ["images.verdicts"]
    verdict = Verdict.model_validate_json(written["images.verdicts"])
    assert verdict.scores == SCORES
    assert (verdict.model, verdict.policy, verdict.content_hash) == (MODEL, POLICY, CONTENT)
    assert json.loads(written["images.verdicts"])["schema"] == "sluice.verdict/1"


def test_an_image_for_review_gets_an_item_with_what_a_reviewer_needs() -> None:
    item = ReviewItem.model_validate_json(scored(REVIEW)["images.review"])
    assert (item.queue, item.priority, item.labels, item.rule) == ("smeared", 80, ("texture",), "poor")
    assert (item.prompt, item.scores, item.features) == ("a cat", SCORES, {"coarse": b"\x00<"})
    assert item.image == S3Reference(bucket="b", key="k")


def test_an_enclosed_image_goes_to_the_reviewers_but_not_into_the_verdict() -> None:
    written = scored(REVIEW, an_event(InlineReference(bytes=b"\x89PNG")))
    assert Verdict.model_validate_json(written["images.verdicts"]).image is None
    assert ReviewItem.model_validate_json(written["images.review"]).image == InlineReference(bytes=b"\x89PNG")


def test_a_verdict_id_repeats_for_the_same_judgement_and_changes_with_the_policy() -> None:
    def verdict_id(policy: str) -> str:
        return Verdict.model_validate_json(scored(REVIEW, outbox=an_outbox(policy))["images.verdicts"]).verdict_id

    assert verdict_id(POLICY) == verdict_id(POLICY)
    assert verdict_id(POLICY) != verdict_id(MODEL)


milliseconds = st.floats(0, 1e6).map(lambda value: round(value, 3))
probability = st.floats(0, 1)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=-30))]))
images = st.one_of(
    st.builds(S3Reference, bucket=st.just("a-bucket"), key=printable, etag=st.none() | printable),
    st.just(HttpReference(url="https://example.com/%C3%A4.png?q=1")),
    st.just(FileReference(path='/images/"quoted" \u2028.png')),
    st.builds(InlineReference, bytes=st.binary(min_size=1, max_size=40)),
)


@given(
    event=st.builds(
        ImageEvent,
        id=printable,
        occurred_at=moments,
        tenant=names,
        image=images,
        prompt=st.none() | texts,
        generator=st.none() | texts.filter(bool),
    ),
    scores=st.builds(
        Scores,
        quality=st.floats(1, 5),
        anchors=st.none() | st.tuples(*[probability] * 5),
        coarse_share=st.none() | probability,
        correspondence=st.none() | st.floats(1, 5),
    ),
    labels=st.lists(names, max_size=3).map(tuple),
    features=st.dictionaries(names, st.binary(max_size=40), max_size=2),
    timings=st.tuples(*[milliseconds] * 4),
    judged_at=moments,
    provenance=st.none()
    | st.builds(
        Provenance,
        found=st.booleans(),
        c2pa=st.sampled_from(["absent", "valid"]),
        model=st.none() | texts.filter(bool),
        steps=st.none() | st.integers(0, 100),
    ),
)
def test_messages_are_written_byte_for_byte_as_the_contracts_write_them(
    event: ImageEvent,
    scores: Scores,
    labels: tuple[str, ...],
    features: dict[str, bytes],
    timings: tuple[float, float, float, float],
    judged_at: datetime,
    provenance: Provenance | None,
) -> None:
    outbox = Outbox(TopicSettings(), Identity(MODEL, POLICY), max_message_bytes=LIMIT, now=lambda: judged_at)
    took: TimingFields = dict(zip(TIMINGS, timings, strict=True))  # type: ignore[assignment]
    overload = RouteOverload(queue="q", mode="sample")
    route = Route(action="review", queue="q", labels=labels, rule="r", overload=overload)
    verdict, item = outbox.scored(
        event, SOURCE, CONTENT, scores, features, route, took, cached=True, provenance=provenance, overloaded=("q",)
    )
    assert verdict.value == Verdict.model_validate_json(verdict.value).model_dump_json().encode()
    assert item.value == ReviewItem.model_validate_json(item.value).model_dump_json().encode()
    assert ReviewItem.model_validate_json(item.value).image == event.image
    assert ReviewItem.model_validate_json(item.value).provenance == provenance
    assert Verdict.model_validate_json(verdict.value).provenance == provenance


def test_a_review_without_a_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="'poor' routes to review without a queue"):
        scored(Route(action="review", rule="poor"))


def failed(record: Record, event: ImageEvent | None) -> dict[str, bytes]:
    failure = Failure(reason=FailureReason.MALFORMED_EVENT, message="not JSON")
    outputs = an_outbox().failed(record, event, SOURCE, failure, REVIEW, TIMINGS)
    assert all(len(output.value) + len(output.key or b"") < LIMIT for output in outputs)
    return {output.topic: output.value for output in outputs}


def test_what_could_not_be_judged_is_kept_whole_and_shown_to_people() -> None:
    record = Record(Partition("images.in", 2), 40, b"\xff{", key=b"k", headers=(("h", b"\x01"), ("empty", None)))
    written = failed(record, None)
    letter = DeadLetter.model_validate_json(written["images.dead"])
    assert (letter.payload, letter.key, letter.headers) == (b"\xff{", b"k", (("h", b"\x01"), ("empty", None)))
    assert (letter.source, letter.event_id) == (Source(**SOURCE), "record:images.in/2/40")
    verdict = Verdict.model_validate_json(written["images.verdicts"])
    assert (verdict.status, verdict.scores, verdict.route.action) == ("failed", None, "review")
    item = ReviewItem.model_validate_json(written["images.review"])
    assert (item.verdict_id, item.failure) == (letter.verdict_id, letter.failure)


def test_a_record_too_large_for_a_dead_letter_is_cut_and_its_size_told() -> None:
    record = Record(
        Partition("images.in", 2), 40, b"x" * 3 * LIMIT, key=b"k" * LIMIT, headers=(("h", b"v" * LIMIT), ("i", b"1"))
    )
    letter = DeadLetter.model_validate_json(failed(record, None)["images.dead"])
    assert letter.payload_size == 3 * LIMIT
    assert letter.payload is not None
    assert LIMIT // 2 < len(letter.payload) < LIMIT
