"""An engine that calls the engine application. Used by the intake, the gateway and others."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from worker.apps.patience import patiently
from worker.scoring.engine import BatchFailed, EngineLost, Features, Prompts, Views
from worker.telemetry.trace_context import CALLER

ENGINE = "engine"
"""The name of the engine's deployment and, by default, of its application."""

PATIENCE_SECONDS = 30.0
RETRY_SECONDS = 0.2


class EngineAway(BatchFailed):
    """No replica answered in time, or the replica with the batch died. The batch may be retried."""


class ModelNotServed(BatchFailed):
    """The replica does not serve the model: the engine is changing models, or its settings name another. May be
    retried.
    """


class ServeEngine:
    """The replicas of the engine application as one engine for one model. Serve picks the replica. Thread-safe. Calls
    block, so do not use it on an event loop.

    Replicas change models one after another. So a call that reaches a replica without the model is repeated within
    `patience_seconds`.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        model_digest: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._handle = handle
        self._digest = model_digest
        self._patience = patience_seconds
        self._clock = clock
        self._sleep = sleep
        self._max_batch: int | None = None

    @property
    def max_batch(self) -> int:
        """Requested from the engine once. Raises EngineAway or ModelNotServed."""
        if self._max_batch is None:
            self._max_batch = int(self._call(self._handle.max_batch, self._digest))
        return self._max_batch

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """See Engine.infer. The returned arrays are read-only. Also raises EngineAway and ModelNotServed."""
        caller = CALLER.get()
        traced = () if caller is None else (caller,)  # a replica of an older version knows no such argument
        features: Features = self._call(self._handle.infer, self._digest, dict(views), prompts, *traced)
        return features

    def close(self) -> None:
        """Does nothing: the engine belongs to another application."""

    def _call(self, method: DeploymentHandle[Any], *arguments: object) -> Any:
        deadline = self._clock() + self._patience
        while True:
            try:
                return self._answer(method, arguments, deadline)
            except ModelNotServed:
                if self._clock() + RETRY_SECONDS >= deadline:
                    raise
            self._sleep(RETRY_SECONDS)

    def _answer(self, method: DeploymentHandle[Any], arguments: tuple[object, ...], deadline: float) -> Any:
        response = method.remote(*arguments)
        try:
            return response.result(timeout_s=max(0.0, deadline - self._clock()))
        except RayTaskError as error:  # the replica's own exception
            raise _as_seen_here(error.cause) from None
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise EngineAway(
                f"no engine replica answered within {self._patience:g} s; see `serve status` for the engine application"
            ) from None
        except (RayError, RayServeException, CancelledError) as error:
            raise EngineAway(f"the engine replica ended ({type(error).__name__})") from error


def _as_seen_here(cause: BaseException) -> BatchFailed:
    """Translates a replica's exception for its callers. An engine that is lost in the replica's process is not lost for
    the callers, because Serve starts another replica.
    """
    if isinstance(cause, BatchFailed):
        return type(cause)(str(cause))
    if isinstance(cause, EngineLost):
        return EngineAway(f"the engine replica lost its engine and is being replaced: {cause}")
    return BatchFailed(f"{type(cause).__name__}: {cause}")


def find_engine(
    application: str,
    *,
    patience_seconds: float,
    stopping: Callable[[], bool] = lambda: False,
) -> DeploymentHandle[Any]:
    """The handle of the engine application. Waits until it exists, because the applications of a Serve config start in
    any order. Raises EngineAway if it does not exist in time, or when `stopping`.
    """

    def find() -> DeploymentHandle[Any]:
        return serve.get_deployment_handle(ENGINE, application)

    faults = (KeyError, RayError)
    try:
        return patiently(
            find, faults, patience_seconds=patience_seconds, retry_seconds=RETRY_SECONDS, stopping=stopping
        )
    except faults as error:
        raise EngineAway(
            f"there is no Serve application {application!r} with a deployment {ENGINE!r}; deploy the engine, "
            "or name its application in the arguments"
        ) from error
