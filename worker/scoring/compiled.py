"""Opens an engine of the model repository: the right one for this machine, and only one that has passed its gate."""

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.scoring.cuda_device import CudaDevice
from worker.scoring.engine import Engine
from worker.scoring.engine_record import EngineMismatch, EngineRecord, Target
from worker.scoring.model import Model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository, Version
from worker.scoring.stores import RepositoryError

PARITY_REPORT = "parity.json"


class Unverified(Exception):
    """The engine has not passed the parity gate. The message says what to run."""


class _ParityVerdict(BaseModel):
    """As much of a parity report as decides."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    engine: str
    model: str


def open_compiled(
    repository: Repository,
    version: Version,
    target: Target,
    model: Model,
    *,
    verified: bool = True,
    threads: int | None = None,
) -> Engine:
    """The engine for a target. `verified` asks for a parity report on this very engine that says it passed; `threads`:
    processors for one of OpenVINO, absent: all.

    Raises RepositoryError where there is none, Unverified, EngineMismatch for one of another model, version or GPU, and
    whatever its engine raises when it starts.
    """
    record = repository.engine(version, target)
    if record is None:
        there = ", ".join(record.target.name for record in repository.engines(version)) or "none"
        raise RepositoryError(
            f"{repository.where(version)} has no engine {target.name} (there: {there}); make it: "
            f"{build_command(repository, version, target)}"
        )
    try:
        record.check(model=model.manifest.digest)
        device = None if target.backend == "openvino" else CudaDevice()
        if device is not None:
            record.check(compute_capability=device.compute_capability)
        if verified:
            _check_verified(repository, version, record)
        if device is None:
            graph, weights = repository.engine_files(version, record)
            precision = "f32" if target.precision == "fp32" else "bf16"  # in int8, of what is not quantised
            return OpenVinoEngine(model, threads=threads, precision=precision, prebuilt=(graph, weights))
        from worker.scoring.tensorrt_engine import CompiledText, TensorRtEngine

        engine, *rest = repository.engine_files(version, record)
        prompt = model.judging_prompts
        text = CompiledText(rest[0], prompt) if rest and prompt is not None else None
        return TensorRtEngine(model.manifest, record, engine, text=text, device=device)
    except EngineMismatch as error:
        raise EngineMismatch(f"{error}: {build_command(repository, version, target)} --rebuild") from error


def build_command(repository: Repository, version: Version, target: Target) -> str:
    """What builds such an engine for the machine it is called on."""
    return f"sluice build {_place(repository, version)} --backend {target.backend} --precision {target.precision}"


def _place(repository: Repository, version: Version) -> str:
    """The arguments that name the version's model and its repository."""
    where = repository.where(version)
    return f"{where} --repository {where.removesuffix(version.folder).rstrip('/') or '/'}"


def _check_verified(repository: Repository, version: Version, record: EngineRecord) -> None:
    name = record.target.name
    again = f"sluice verify {_place(repository, version)} --engine {name}"
    text = repository.read_report(version, record.target, PARITY_REPORT)
    if text is None:
        raise Unverified(f"engine {name} was never compared with the reference; run {again}")
    try:
        verdict = _ParityVerdict.model_validate_json(text)
    except ValidationError as error:
        raise Unverified(f"the parity report of engine {name} is damaged; run {again}") from error
    if verdict.engine != record.digest or verdict.model != record.model:
        raise Unverified(f"engine {name} was rebuilt since it was compared with the reference; run {again}")
    if not verdict.passed:
        raise Unverified(f"engine {name} failed the parity gate; its parity.html says which images moved")
