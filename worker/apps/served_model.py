"""A model as the engine's callers need it, and the engine once it serves that model."""

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
    """The model without its graphs, which are the engine's affair and may be hundreds of megabytes.

    Raises ManifestError.
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
    """The engine of an application, once it serves the model. Raises EngineAway or ModelNotServed when it does not
    within `patience_seconds`, or when `stopping`."""
    deadline = time.monotonic() + patience_seconds
    handle = find_engine(application, patience_seconds=patience_seconds, stopping=stopping)
    engine = ServeEngine(handle, model.manifest.digest, patience_seconds=call_seconds)
    patiently(
        lambda: engine.infer(blank_views(model.manifest.views)),
        (EngineAway, ModelNotServed),
        patience_seconds=deadline - time.monotonic(),
        retry_seconds=RETRY_SECONDS,  # a deployment that Serve has given up on refuses calls at once
        tell=lambda error: log.warning("waiting_for_the_engine", error=str(error)),
        stopping=stopping,
    )
    return engine
