"""Opens an engine of the model repository: the right one for this machine, and only one that has passed its gate."""

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.scoring.engine import Engine
from worker.scoring.engine_record import EngineRecord, Target
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
    repository: Repository, version: Version, target: Target, model: Model, *, verified: bool = True
) -> Engine:
    """The engine for a target. `verified` asks for a parity report on this very engine that says it passed.

    Raises RepositoryError where there is none, Unverified, EngineMismatch for one of another model, version or GPU, and
    whatever its engine raises when it starts.
    """
    record = repository.engine(version, target)
    if record is None:
        there = ", ".join(record.target.name for record in repository.engines(version)) or "none"
        raise RepositoryError(
            f"{version.folder} has no engine {target.name} (there: {there}); make it with sluice build"
        )
    record.check(model=model.manifest.digest)
    if verified:
        _check_verified(repository, version, record)
    files = repository.engine_files(version, record)
    if target.backend == "openvino":
        graph, weights = files
        precision = "bf16" if target.precision == "bf16" else "f32"
        return OpenVinoEngine(model, precision=precision, prebuilt=(graph, weights))
    from worker.scoring.tensorrt_engine import TensorRtEngine

    return TensorRtEngine(model.manifest, record, files[0])


def _check_verified(repository: Repository, version: Version, record: EngineRecord) -> None:
    name = record.target.name
    text = repository.read_report(version, record.target, PARITY_REPORT)
    if text is None:
        raise Unverified(f"engine {name} was never compared with the reference; run sluice verify")
    try:
        verdict = _ParityVerdict.model_validate_json(text)
    except ValidationError as error:
        raise Unverified(f"the parity report of engine {name} is damaged; run sluice verify again") from error
    if verdict.engine != record.files[0].sha256 or verdict.model != record.model:
        raise Unverified(f"engine {name} was rebuilt since it was compared with the reference; run sluice verify again")
    if not verdict.passed:
        raise Unverified(f"engine {name} failed the parity gate; its parity.html says which images moved")
