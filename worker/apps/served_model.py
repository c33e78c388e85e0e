"""Loads a model for callers of the engine, and waits until the engine serves it."""

import dataclasses
import time
from collections.abc import Callable

import structlog

from worker.apps.patience import patiently
from worker.apps.serve_engine import RETRY_SECONDS, EngineAway, ModelNotServed, ServeEngine, find_engine
from worker.scoring.engine import blank_views
from worker.scoring.model import Model, load_model
from worker.settings import Settings

log = structlog.get_logger(__name__)


def load_served_model(settings: Settings) -> Model:
    """Loads the model without its graphs, which only the engine needs and which may be hundreds of megabytes. Raises
    ManifestError.
    """
    model = load_model(settings.model, settings.s3)
    prompt = dataclasses.replace(model.prompt, text=b"") if model.prompt is not None else None
    return dataclasses.replace(model, graph=b"", prompt=prompt)


def wait_for_engine(
    application: str,
    model: Model,
    *,
    call_seconds: float,
    patience_seconds: float,
    stopping: Callable[[], bool] = lambda: False,
) -> ServeEngine:
    """Waits until the application's engine serves the model, and returns it. Raises EngineAway or ModelNotServed when
    it does not within `patience_seconds`, or when `stopping`.
    """
    deadline = time.monotonic() + patience_seconds
    handle = find_engine(application, patience_seconds=patience_seconds, stopping=stopping)
    engine = ServeEngine(handle, model.manifest.digest, patience_seconds=call_seconds)
    patiently(
        lambda: engine.infer(blank_views(model.manifest.views)),
        (EngineAway, ModelNotServed),
        patience_seconds=deadline - time.monotonic(),
        retry_seconds=RETRY_SECONDS,  # a deployment that failed for Serve refuses calls at once
        tell=lambda error: log.warning("waiting_for_the_engine", error=str(error)),
        stopping=stopping,
    )
    return engine
