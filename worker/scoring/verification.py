"""Checks whether an engine passed the parity gate, from the report stored beside it."""

import hashlib

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.scoring.engine_record import EngineRecord, Target
from worker.scoring.repository import Repository, Version

PARITY_REPORT = "parity.json"


class Unverified(Exception):
    """An engine did not pass the parity gate. The message names the command to run."""


class _ParityVerdict(BaseModel):
    """The fields of a parity report that decide whether an engine may serve."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    engine: str
    model: str


def check_verified(repository: Repository, version: Version, record: EngineRecord) -> str:
    """The sha256 of the parity report with which this engine passed. Raises Unverified if there is none."""
    name = record.target.name
    again = f"sluice verify {repository_arguments(repository, version)} --engine {name}"
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
        raise Unverified(f"engine {name} failed the parity gate; its parity.html shows which images changed")
    return hashlib.sha256(text.encode()).hexdigest()


def build_command(repository: Repository, version: Version, target: Target) -> str:
    """The command that builds such an engine for the machine on which it runs."""
    place = repository_arguments(repository, version)
    return f"sluice build {place} --backend {target.backend} --precision {target.precision}"


def repository_arguments(repository: Repository, version: Version) -> str:
    """The command-line arguments that name the version's model and its repository."""
    where = repository.where(version)
    return f"{where} --repository {where.removesuffix(version.folder).rstrip('/') or '/'}"
