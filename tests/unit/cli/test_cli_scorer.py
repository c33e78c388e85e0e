import threading
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas import FailureReason, FileReference, ImageEvent, ImageReference, Provenance, Route, Scores
from worker.cli.scorer import Scorer
from worker.cli.sources import ImageSource
from worker.images.decoded_views import DecodedViews
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch import FetchedImage
from worker.judging.retries import RetryPolicy
from worker.policy import PolicyError
from worker.policy.overload import Overloaded
from worker.scoring.engine import BatchFailed, EngineLost, Prompts
from worker.view import ViewSpec

QUICK = RetryPolicy(max_attempts=3, base_seconds=0.001, max_seconds=0.001, deadline_seconds=60.0)
VIEWS = {"coarse": ViewSpec(size=16, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))}


class FakeFetcher:
    """The bytes of an image are its path; `outcomes` are raised first, in turn."""

    def __init__(self, **outcomes: list[Exception]) -> None:
        self.outcomes = outcomes
        self.open = 0
        self.most_open = 0
        self.lock = threading.Lock()

    def fetch(self, reference: ImageReference) -> FetchedImage:
        assert isinstance(reference, FileReference)
        with self.lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        if waiting := self.outcomes.get(reference.path):
            raise waiting.pop(0)
        time.sleep(0.001 * (hash(reference.path) % 5))
        return FetchedImage(reference.path.encode())

    def close(self) -> None: ...


class FakeEngine:
    """Its feature is the image's number; fails on batches that hold a number of `poison`."""

    max_batch = 8

    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.poison = poison
        self.batches: list[int] = []
        self.prompts: list[str | None] = []

    def infer(
        self, views: Mapping[str, NDArray[np.uint8]], prompts: Prompts | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        numbers = views["coarse"][:, 0, 0, 0].astype(np.float32)
        if self.poison & {int(number) for number in numbers}:
            raise BatchFailed("out of memory")
        self.batches.append(len(numbers))
        self.prompts.extend(prompts or [])
        return {"coarse": numbers[:, None]}

    def close(self) -> None: ...


class FakePolicy:
    digest = "sha256:" + "d" * 64

    def route(self, event: ImageEvent, scores: Scores, _: Provenance, _overloaded: Overloaded) -> Route:
        if scores.quality == 5:
            raise PolicyError("rule x: no such attribute")
        return Route(action="pass", rule=event.tenant)

    def failure_route(self, tenant: str, priority: int) -> Route:
        return Route(action="review", queue="failures", rule="failure", priority=priority)


class NumberDecoder:
    """Takes each image's bytes for a number, and makes pixels of it."""

    def decode(self, data: bytes, *, wants_pixels: bool = False, frame: int | None = None) -> DecodedViews:
        if data == b"broken":
            raise ImageError(FailureReason.UNDECODABLE_IMAGE, "ends early")
        pixels = np.full((16, 16, 3), int(data), np.uint8)
        return DecodedViews({"coarse": pixels}, 1, (0,), pixels if wants_pixels else None)


def make(fetcher: Any = None, engine: Any = None, **more: Any) -> Scorer:
    heads = SimpleNamespace(
        score=lambda features: [Scores(quality=1 + float(n) % 41 / 10) for n in features["coarse"][:, 0]]
    )
    model: Any = SimpleNamespace(manifest=SimpleNamespace(views=VIEWS, judges_prompts=True), heads=heads)
    policy: Any = FakePolicy()
    options = {"batch_size": 4, "decoder": NumberDecoder(), "threads": 3, "retries": QUICK}
    return Scorer(model, engine or FakeEngine(), policy, fetcher or FakeFetcher(), **{**options, **more})


def sources(*paths: object) -> list[ImageSource]:
    return [ImageSource(f"name {path}", FileReference(path=str(path))) for path in paths]


def test_results_come_in_the_order_of_the_sources() -> None:
    results = list(make().score(sources(*range(30))))

    assert [result.name for result in results] == [f"name {n}" for n in range(30)]
    assert [result.scores.quality for result in results if result.scores] == [1 + n / 10 for n in range(30)]


def test_the_engine_gets_the_prompt_with_every_image_and_none_where_there_is_none() -> None:
    with_one, without = FakeEngine(), FakeEngine()
    list(make(engine=with_one, prompt="a cat").score(sources(1, 2, "broken", 3)))
    list(make(engine=without).score(sources(1)))

    assert with_one.prompts == ["a cat"] * 3
    assert without.prompts == [None]


def test_the_engine_gets_full_batches() -> None:
    engine = FakeEngine()
    list(make(engine=engine).score(sources(*range(18))))

    assert engine.batches == [4, 4, 4, 4, 2]


def test_no_batch_is_larger_than_the_engine_takes() -> None:
    engine = FakeEngine()
    list(make(engine=engine, batch_size=100).score(sources(*range(20))))

    assert engine.batches == [8, 8, 4]


def test_a_broken_image_is_reported_in_its_place_and_does_not_stop_the_others() -> None:
    engine = FakeEngine()
    results = list(make(engine=engine).score(sources(1, "broken", 2)))

    assert [result.failure and result.failure.reason for result in results] == [None, "undecodable_image", None]
    assert results[1].route.queue == "failures"
    assert engine.batches == [2]


def test_a_source_without_a_reference_is_reported() -> None:
    (result,) = make().score([ImageSource("x", None, "not a regular file")])

    assert result.failure is not None
    assert result.failure.message == "not a regular file"


def test_a_transient_fault_is_tried_again() -> None:
    fetcher = FakeFetcher(**{"7": [TransientFetchError("503"), TransientFetchError("503")]})
    (result,) = make(fetcher).score(sources(7))

    assert result.scores is not None
    assert fetcher.open == 3


def test_a_fault_that_stays_is_reported_after_three_attempts() -> None:
    fetcher = FakeFetcher(**{"7": [TransientFetchError("503")] * 3})
    (result,) = make(fetcher).score(sources(7))

    assert result.failure is not None
    assert (result.failure.reason, result.failure.attempts) == ("fetch_failed", 3)
    assert result.failure.message.startswith("503; gave up after 3 attempts")


def test_a_batch_that_fails_is_tried_image_by_image() -> None:
    engine = FakeEngine(poison=frozenset({2}))
    results = list(make(engine=engine).score(sources(*range(4))))

    assert [result.failure and result.failure.reason for result in results] == [None, None, "engine_failed", None]
    assert set(engine.batches) == {1}, "one by one, and the blank images that show that the engine works"


def test_an_image_that_the_policy_cannot_judge_fails_closed() -> None:
    (result,) = make().score(sources(40))

    assert result.failure is not None
    assert (result.failure.reason, result.route.action) == ("policy_failed", "review")


def test_the_tenants_rules_apply() -> None:
    (result,) = make(tenant="acme").score(sources(1))

    assert result.route.rule == "acme"


@pytest.mark.parametrize("path", ["1", "broken"])
def test_sources_are_not_read_far_ahead_of_the_results(path: str) -> None:
    taken = 0

    def endless() -> Iterator[ImageSource]:
        nonlocal taken
        while True:
            taken += 1
            yield ImageSource("x", FileReference(path=path))

    results = make().score(endless())
    for _ in range(100):
        next(results)
    results.close()  # type: ignore[attr-defined]

    assert taken < 100 + 40


def test_the_content_hash_is_that_of_the_bytes() -> None:
    (result,) = make().score(sources(1))

    assert result.content_hash == "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_thumbnails_are_made_only_when_asked_for() -> None:
    (without,) = make().score(sources(1))
    (with_one,) = make(thumbnails=True).score(sources(1))

    assert without.thumbnail is None
    assert with_one.thumbnail is not None
    assert with_one.thumbnail.startswith(b"\xff\xd8")


def test_an_engine_that_is_lost_ends_the_command() -> None:
    class Lost(FakeEngine):
        def infer(self, *_: Any, **__: Any) -> Any:
            raise EngineLost("the GPU is gone")

    with pytest.raises(EngineLost, match="the GPU is gone"):
        list(make(engine=Lost()).score(sources(*range(10))))


def test_an_engine_that_does_not_answer_fails_the_images_at_once() -> None:
    class Away(FakeEngine):
        def infer(self, *_: Any, **__: Any) -> Any:
            raise BatchFailed("no answer")

    results = list(make(engine=Away()).score(sources(*range(10))))
    assert {result.failure and result.failure.reason for result in results} == {FailureReason.ENGINE_FAILED}
    assert {result.route.action for result in results} == {"review"}


def test_the_same_image_twice_is_scored_once_and_has_its_thumbnail_twice() -> None:
    engine = FakeEngine()
    results = list(make(engine=engine, thumbnails=True).score(sources(1, 1, 1)))
    assert sum(engine.batches) == 1
    assert len({result.thumbnail for result in results}) == 1
    assert results[2].thumbnail is not None
