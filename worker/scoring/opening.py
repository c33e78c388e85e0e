"""Opens the engine that the settings name or, with `auto`, the best one that runs on this host."""

import ctypes
from collections.abc import Sequence

import structlog

from worker.scoring.blob_cache import BlobCache
from worker.scoring.compiled import load_torch_engine, open_compiled
from worker.scoring.engine import Engine, EngineError
from worker.scoring.engine_record import EngineMismatch, EngineRecord, Target
from worker.scoring.model import Model
from worker.scoring.onnx_file import GraphError
from worker.scoring.open_store import open_store
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository, Version, cache_folder
from worker.scoring.stores import RepositoryError
from worker.scoring.tensorrt_binding import BindingMissing
from worker.scoring.verification import Unverified
from worker.settings import EngineSettings, Settings

log = structlog.get_logger(__name__)

BEST_BACKENDS_FIRST = ("tensorrt", "tensorrt-rtx", "torch", "openvino")
FASTEST_FIRST = ("int8", "fp8", "fp16", "bf16", "fp32")


def open_engine(settings: Settings, model: Model) -> Engine:
    """Opens and warms up the engine of a model as `settings.engine` says.

    `auto` skips engines that do not start here, and logs the reason and how to fix it. For a named backend, raises
    RepositoryError, the errors of `open_compiled`, and GraphError for a graph that torch cannot run.
    """
    wanted = settings.engine
    gpu = has_gpu()
    if wanted.repository is not None:
        engine = _open_published(wanted, Repository(open_store(wanted.repository, settings.s3)), settings, model, gpu)
        if engine is not None:
            return engine
    if wanted.backend == "torch":
        return _open_torch(wanted, model, gpu)
    if wanted.backend == "auto" and gpu:
        try:
            return _open_torch(wanted, model, gpu)
        except (BindingMissing, GraphError, EngineError) as error:
            log.warning("engine_passed_over", engine="torch", reason=str(error))
    precision = "f32" if wanted.precision == "fp32" else wanted.precision
    return OpenVinoEngine(model, threads=wanted.threads, precision=precision, cache=BlobCache(cache_folder("openvino")))


def has_gpu() -> bool:
    """Whether NVIDIA's driver is installed and sees a GPU. Asks the driver directly, so neither torch nor CUDA is
    needed.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _open_published(
    wanted: EngineSettings, repository: Repository, settings: Settings, model: Model, gpu: bool
) -> Engine | None:
    """The repository's best engine that starts; None if none does and `auto` may use another backend."""
    automatic = wanted.backend == "auto"
    version = Version(model.manifest.name, model.manifest.version)
    refusals: list[Exception] = []
    try:
        for record in _candidates(wanted, repository, version, settings, model, gpu):
            try:
                return open_compiled(repository, version, record.target, model, threads=wanted.threads)
            except (Unverified, EngineMismatch, BindingMissing, EngineError, RepositoryError) as error:
                # A repository may hold engines for other GPUs, so a mismatch is not a warning.
                tell = log.info if isinstance(error, EngineMismatch) else log.warning
                tell("engine_passed_over", engine=record.target.name, reason=str(error))
                refusals.append(error)
    except RepositoryError as error:
        log.warning("engine_passed_over", engine=f"all in {wanted.repository}", reason=str(error))
        refusals.append(error)
    if refusals and not automatic:
        raise next((error for error in refusals if not isinstance(error, EngineMismatch)), refusals[0])
    return None


def _candidates(
    wanted: EngineSettings, repository: Repository, version: Version, settings: Settings, model: Model, gpu: bool
) -> Sequence[EngineRecord]:
    """The engines that the settings allow, best first. Raises RepositoryError if there is none."""
    published = repository.manifest(version)
    build = f"sluice build {settings.model} --repository {wanted.repository}"
    if wanted.backend != "auto":
        build += f" --backend {wanted.backend}"
    if wanted.precision is not None:
        build += f" --precision {wanted.precision}"
    if published is None:
        raise RepositoryError(f"{repository.where(version)}: no such model; build its engine: {build}")
    if published.digest != model.manifest.digest:
        raise RepositoryError(
            f"{repository.where(version)} is model {published.digest}, and the settings' is {model.manifest.digest}; "
            "set model to that place, or publish the other model with a new version"
        )
    there, damaged = repository.engines(version)
    for problem in damaged:
        log.warning("engine_passed_over", reason=str(problem))
    chosen = [
        record
        for record in there
        if _suits(record.target, wanted.backend, gpu) and wanted.precision in (None, record.target.precision)
    ]
    if not chosen and (wanted.backend != "auto" or not there):
        raise RepositoryError(
            f"{repository.where(version)} has no such engine (existing: "
            f"{', '.join(record.target.name for record in there) or 'none'}); make it: {build}"
            f"{' --rebuild' if damaged else ''}"
        )
    return sorted(chosen, key=_rank)


def _suits(target: Target, backend: str, gpu: bool) -> bool:
    """Whether the settings' backend allows such an engine, on a host with or without a GPU. Torch engines run on the
    GPU if there is one. Torch engines for CPUs are used only if named, because OpenVINO is faster.
    """
    if backend == "auto":
        return target.backend == "openvino" or (gpu and target.on_gpu)
    return target.backend == backend and (backend != "torch" or target.on_gpu == gpu)


def _rank(record: EngineRecord) -> tuple[int, int]:
    return BEST_BACKENDS_FIRST.index(record.target.backend), FASTEST_FIRST.index(record.target.precision)


def _open_torch(wanted: EngineSettings, model: Model, gpu: bool) -> Engine:
    low = (wanted.precision or model.manifest.precision) == "bf16"
    torch_engine = load_torch_engine()
    return torch_engine(model, device="cuda" if gpu else "cpu", precision="bf16" if low else "fp32", compiled=gpu)
