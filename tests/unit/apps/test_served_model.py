"""Waiting until the engine application serves a model."""

import time
from typing import Any

import pytest
from ray import serve
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from worker.apps import served_model
from worker.apps.serve_engine import RETRY_SECONDS, EngineAway
from worker.apps.served_model import wait_for_engine
from worker.scoring.model import Model, load_model


class RefusingHandle:
    """As the handle of a deployment that Serve has given up on: every call is refused at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.infer = self

    def remote(self, *_: object) -> "RefusingHandle":
        self.calls += 1
        return self

    def result(self, *, timeout_s: float) -> object:
        raise DeploymentUnavailableError(DeploymentID("engine", "engine"))


@pytest.fixture
def model() -> Model:
    return load_model("mst-lite")


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> RefusingHandle:
    handle = RefusingHandle()
    monkeypatch.setattr(served_model, "find_engine", lambda *_, **__: handle)
    return handle


def wait(model: Model, **options: Any) -> None:
    wait_for_engine("engine", model, call_seconds=5.0, **options)


def test_an_engine_that_refuses_at_once_is_asked_now_and_then(model: Model, handle: RefusingHandle) -> None:
    started = time.monotonic()
    with pytest.raises(EngineAway, match="DeploymentUnavailableError"):
        wait(model, patience_seconds=4 * RETRY_SECONDS)
    assert time.monotonic() - started >= 4 * RETRY_SECONDS
    assert 2 <= handle.calls <= 5, "it should neither give up nor besiege the engine"


def test_a_replica_that_is_stopped_waits_no_longer(model: Model, handle: RefusingHandle) -> None:
    with pytest.raises(EngineAway):
        wait(model, patience_seconds=600.0, stopping=lambda: handle.calls >= 2)
    assert handle.calls == 2


def test_a_replica_that_is_stopped_looks_for_no_engine_that_was_never_deployed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(serve, "get_deployment_handle", missing)
    with pytest.raises(EngineAway, match="there is no Serve application 'engine'"):
        wait(model, patience_seconds=600.0, stopping=lambda: True)
