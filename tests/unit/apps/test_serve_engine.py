"""An engine behind a Serve handle: what its callers hear when replicas answer, change, or die."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from tests.unit.clock import Clock
from worker.apps.serve_engine import EngineAway, ModelNotServed, ServeEngine
from worker.scoring.engine import BatchFailed, EngineError, EngineLost

VIEWS = {"whole": np.zeros((2, 2, 2, 3), np.uint8)}
FEATURES = {"coarse": np.ones((2, 4), np.float32)}
DIGEST = "sha256:a"


class FakeHandle:
    """Answers each call by the next of `answers`: a value, or an exception to raise."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[object, ...]] = []
        self.cancelled = 0

    def __getattr__(self, name: str) -> "FakeMethod":
        return FakeMethod(self, name)


class FakeMethod:
    def __init__(self, handle: FakeHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *arguments: object) -> "FakeResponse":
        self._handle.calls.append((self._name, *arguments))
        return FakeResponse(self._handle)


class FakeResponse:
    def __init__(self, handle: FakeHandle) -> None:
        self._handle = handle

    def result(self, *, timeout_s: float) -> object:
        answer = self._handle.answers.pop(0) if len(self._handle.answers) > 1 else self._handle.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def cancel(self) -> None:
        self._handle.cancelled += 1


def raised_there(cause: Exception) -> RayTaskError:
    """As Ray hands over what a replica raised: one class that is of both kinds."""
    return RayTaskError("infer", "Traceback …", cause).as_instanceof_cause()


@pytest.fixture
def engine_of() -> Callable[[Any], ServeEngine]:
    clock = Clock()
    return lambda handle: ServeEngine(handle, DIGEST, patience_seconds=5.0, clock=clock, sleep=clock.sleep)


def test_a_batch_goes_to_a_replica_with_the_digest_of_its_model(engine_of: Callable[[Any], ServeEngine]) -> None:
    handle = FakeHandle(FEATURES)

    assert engine_of(handle).infer(VIEWS, ["a cat", None]) is FEATURES

    assert handle.calls == [("infer", DIGEST, VIEWS, ["a cat", None])]


def test_a_replica_that_is_not_changed_yet_is_asked_again(engine_of: Callable[[Any], ServeEngine]) -> None:
    not_yet = raised_there(ModelNotServed("this engine serves sha256:b"))
    handle = FakeHandle(not_yet, not_yet, FEATURES)

    assert engine_of(handle).infer(VIEWS) is FEATURES
    assert len(handle.calls) == 3


def test_a_model_that_no_replica_has_is_told_after_a_while(engine_of: Callable[[Any], ServeEngine]) -> None:
    handle = FakeHandle(raised_there(ModelNotServed("this engine serves sha256:b, not sha256:a")))

    with pytest.raises(ModelNotServed, match=r"^this engine serves sha256:b, not sha256:a$"):
        engine_of(handle).infer(VIEWS)


def test_a_replica_that_dies_with_the_batch_is_an_engine_error(engine_of: Callable[[Any], ServeEngine]) -> None:
    with pytest.raises(EngineAway, match="ActorDiedError"):
        engine_of(FakeHandle(ActorDiedError())).infer(VIEWS)
    assert issubclass(EngineAway, EngineError)


def test_no_answer_in_time_takes_the_call_back(engine_of: Callable[[Any], ServeEngine]) -> None:
    handle = FakeHandle(TimeoutError())

    with pytest.raises(EngineAway, match=r"within 5 s.*serve status"):
        engine_of(handle).infer(VIEWS)

    assert handle.cancelled == 1


def test_what_the_replica_says_arrives_without_its_traceback(engine_of: Callable[[Any], ServeEngine]) -> None:
    with pytest.raises(EngineError, match=r"^OpenVINO failed on a batch of 2$"):
        engine_of(FakeHandle(raised_there(BatchFailed("OpenVINO failed on a batch of 2")))).infer(VIEWS)
    with pytest.raises(EngineError, match=r"^ValueError: of ours$"):
        engine_of(FakeHandle(raised_there(ValueError("of ours")))).infer(VIEWS)


def test_the_largest_batch_is_asked_for_once(engine_of: Callable[[Any], ServeEngine]) -> None:
    handle = FakeHandle(64)
    engine = engine_of(handle)

    assert (engine.max_batch, engine.max_batch) == (64, 64)
    assert handle.calls == [("max_batch", DIGEST)]


def test_an_engine_that_is_lost_to_its_replica_is_only_away_for_the_callers(
    engine_of: Callable[[Any], ServeEngine],
) -> None:
    """Serve replaces the replica; the caller's own process is sound."""
    with pytest.raises(EngineAway, match="is being replaced: the GPU is lost"):
        engine_of(FakeHandle(raised_there(EngineLost("the GPU is lost")))).infer(VIEWS)
