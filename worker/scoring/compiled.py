"""Opens a compiled engine from the model repository, if it runs on this machine and passed the parity gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from worker.scoring.blob_cache import BlobCache
from worker.scoring.cuda_device import CudaDevice
from worker.scoring.engine import Engine
from worker.scoring.engine_record import EngineMismatch, EngineRecord, Target
from worker.scoring.model import Model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository, Version, cache_folder
from worker.scoring.stores import RepositoryError
from worker.scoring.tensorrt_binding import BindingMissing
from worker.scoring.verification import build_command, check_verified

if TYPE_CHECKING:
    from worker.scoring.torch_engine import TorchEngine


def open_compiled(
    repository: Repository,
    version: Version,
    target: Target,
    model: Model,
    *,
    verified: bool = True,
    threads: int | None = None,
) -> Engine:
    """Opens the engine for a target. `verified`: require a parity report of this engine that passed. `threads`: CPUs
    for an OpenVINO engine; None: all. Raises RepositoryError if there is no such engine, Unverified, EngineMismatch for
    another model, version or GPU, BindingMissing without the backend, and the errors of the engine's start.
    """
    record = repository.engine(version, target)
    if record is None:
        there = ", ".join(record.target.name for record in repository.engines(version)[0]) or "none"
        raise RepositoryError(
            f"{repository.where(version)} has no engine {target.name} (existing: {there}); build it: "
            f"{build_command(repository, version, target)}"
        )
    try:
        record.check(model=model.manifest.digest)
        start = _fit_here(record, model, threads)
        if verified:
            check_verified(repository, version, record)
        return start(repository.engine_files(version, record))
    except EngineMismatch as error:
        raise EngineMismatch(f"{error}: {build_command(repository, version, target)} --rebuild") from error


def load_torch_engine() -> type[TorchEngine]:
    """Imports the torch engine, which takes seconds. Raises BindingMissing when torch is not installed."""
    try:
        from worker.scoring.torch_engine import TorchEngine
    except ImportError as error:
        raise BindingMissing(f"the torch engine does not load: {error}; pip install 'sluice[torch]'") from error
    return TorchEngine


def _fit_here(record: EngineRecord, model: Model, threads: int | None) -> Callable[[Sequence[bytes]], Engine]:
    """Returns a function that makes the engine from its files. Raises EngineMismatch, NoDevice or BindingMissing."""
    precision = record.target.precision
    if record.target.backend == "openvino":
        hint = "f32" if precision == "fp32" else "bf16"  # the precision of the operations that are not quantised
        cache = BlobCache(cache_folder("openvino"))
        return lambda files: OpenVinoEngine(
            model, threads=threads, precision=hint, prebuilt=(files[0], files[1]), cache=cache
        )
    if record.target.backend == "torch":
        torch_engine = load_torch_engine()
        gpu = torch_engine.compute_capability() if record.target.on_gpu else None
        record.check(backend_version=torch_engine.version(), compute_capability=gpu)
        return lambda files: torch_engine.of_record(model, record, files)
    device = CudaDevice()
    record.check(compute_capability=device.compute_capability)

    def start(files: Sequence[bytes]) -> Engine:
        from worker.scoring.tensorrt_engine import CompiledText, TensorRtEngine

        prompt = model.judging_prompts
        text = CompiledText(files[1], prompt) if len(files) > 1 and prompt is not None else None
        return TensorRtEngine(model.manifest, record, files[0], text=text, device=device)

    return start
