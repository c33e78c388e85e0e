"""Health and metadata of the Open Inference Protocol (KServe v2), for platforms that query all model servers the same
way: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol

There is no `infer`: clients send images to `POST /v1/score`, not tensors.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from worker.apps.http.openapi import NEEDS_KEY, OF_METADATA, OF_MODELS
from worker.review.http.problems import Problem
from worker.scoring.manifest import ModelManifest

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v2", tags=["open inference protocol"])

PROBE_SECONDS: Final = 5.0
"""How long a probe's result is used, and the timeout of a probe."""


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: tuple[str, ...] = ()


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 is the batch."""


class ModelMetadata(BaseModel):
    """Inputs and outputs of the engine behind the gateway."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class Live(BaseModel):
    live: bool = True


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class Readiness:
    """Whether the engine answers. It is probed at most once in PROBE_SECONDS. For one event loop."""

    def __init__(self, probe: Callable[[], Awaitable[object]], clock: Callable[[], float]) -> None:
        """`probe` raises if the engine does not work."""
        self._probe = probe
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked_at: float | None = None
        self._ready = False

    async def is_ready(self) -> bool:
        async with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= PROBE_SECONDS:
                self._ready = await self._ask()
                self._asked_at = self._clock()
            return self._ready

    async def _ask(self) -> bool:
        try:
            await asyncio.wait_for(self._probe(), PROBE_SECONDS)
        except Exception as error:  # noqa: BLE001  # whatever it is, the engine does not do its work
            log.warning("engine_not_ready", error=f"{type(error).__name__}: {error}")
            return False
        return True


def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.gateway.readiness
    return readiness


def _manifest(request: Request, model_name: str) -> ModelManifest:
    manifest: ModelManifest = request.app.state.gateway.manifest
    return _of_version(request, model_name, manifest.version)


def _of_version(request: Request, model_name: str, model_version: str) -> ModelManifest:
    manifest: ModelManifest = request.app.state.gateway.manifest
    if (model_name, model_version) != (manifest.name, manifest.version):
        text = f"the model here is {manifest.name}, version {manifest.version}"
        raise _in_its_words(Problem(HTTPStatus.NOT_FOUND, "unknown-model", text))
    return manifest


def _identified(request: Request) -> None:
    try:
        request.app.state.gateway.callers.identify(request)
    except Problem as problem:
        raise _in_its_words(problem) from None


def _in_its_words(problem: Problem) -> Problem:
    """The problem with a field `error`, where clients of the protocol expect the message."""
    problem.more["error"] = problem.detail
    return problem


TheReadiness = Annotated[Readiness, Depends(_readiness)]
TheManifest = Annotated[ModelManifest, Depends(_manifest)]
TheVersion = Annotated[ModelManifest, Depends(_of_version)]
Identified = Depends(_identified)


@router.get("", dependencies=[Identified], openapi_extra=NEEDS_KEY, responses=OF_METADATA)
def server_metadata() -> ServerMetadata:
    return ServerMetadata(name="sluice", version=version("sluice"))


@router.get("/health/live")
def live() -> Live:
    return Live()


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready}})
async def ready(readiness: TheReadiness) -> JSONResponse:
    """Whether the engine answers."""
    return _answer(Ready(ready=await readiness.is_ready()))


@router.get(
    "/models/{model_name}", dependencies=[Identified], openapi_extra=NEEDS_KEY, responses=OF_METADATA | OF_MODELS
)
def model_metadata(manifest: TheManifest) -> ModelMetadata:
    return _metadata(manifest)


@router.get(
    "/models/{model_name}/versions/{model_version}",
    dependencies=[Identified],
    openapi_extra=NEEDS_KEY,
    responses=OF_METADATA | OF_MODELS,
)
def version_metadata(manifest: TheVersion) -> ModelMetadata:
    return _metadata(manifest)


@router.get(
    "/models/{model_name}/ready", response_model=ModelReady, responses={503: {"model": ModelReady}, **OF_MODELS}
)
async def model_ready(manifest: TheManifest, readiness: TheReadiness) -> JSONResponse:
    return _answer(ModelReady(name=manifest.name, ready=await readiness.is_ready()))


@router.get(
    "/models/{model_name}/versions/{model_version}/ready",
    response_model=ModelReady,
    responses={503: {"model": ModelReady}, **OF_MODELS},
)
async def version_ready(manifest: TheVersion, readiness: TheReadiness) -> JSONResponse:
    return _answer(ModelReady(name=manifest.name, ready=await readiness.is_ready()))


def _metadata(manifest: ModelManifest) -> ModelMetadata:
    return ModelMetadata(
        name=manifest.name,
        versions=(manifest.version,),
        platform="sluice",
        inputs=tuple(
            TensorMetadata(name=name, datatype="UINT8", shape=(-1, *view.shape))
            for name, view in manifest.views.items()
        ),
        outputs=tuple(
            TensorMetadata(name=tower.name, datatype="FP32", shape=(-1, tower.features)) for tower in manifest.towers
        ),
    )


def _answer(state: Ready | ModelReady) -> JSONResponse:
    status = HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(state.model_dump(), status_code=status.value)
