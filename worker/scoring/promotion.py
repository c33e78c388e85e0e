"""Promotes the version of a model that serves, and rolls back to the previous one."""

from collections.abc import Callable
from datetime import UTC, datetime

from worker.scoring.manifest import ManifestError, ModelManifest
from worker.scoring.repository import Repository, Version, engine_folder
from worker.scoring.serving_record import SERVING_NAME, EngineParity, Promotion, ServingRecord, read_serving
from worker.scoring.stores import FileStore, RepositoryError
from worker.scoring.verification import PARITY_REPORT, Unverified, check_verified


class Promoter:
    """Changes which version of a model serves. Workers use the serving version when they start.

    Of two concurrent changes, the later one is refused (StoreConflict), so none is lost. `now` dates the changes.
    """

    def __init__(self, store: FileStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._repository = Repository(store)
        self._now = now

    def record(self, model: str) -> ServingRecord | None:
        """All promotions and rollbacks of a model; None when no version was ever promoted. Raises RepositoryError."""
        return read_serving(self._store, _file(model))[0]

    def promote(self, version: Version, *, by: str, note: str = "", allow_unverified: bool = False) -> ServingRecord:
        """Makes a version the serving one. Idempotent for the same version with the same engines.

        Every file of the model is checked. Every engine of the version must have passed the parity gate, unless
        `allow_unverified`; an engine that did not pass is never served. Raises RepositoryError for a missing or damaged
        version, Unverified, and StoreConflict.
        """
        manifest = self._whole(version)
        engines, problems = self._engines(version)
        if problems and not allow_unverified:
            raise Unverified("\n".join([*problems, "promote after that, or with --allow-unverified"]))
        before, seen = read_serving(self._store, _file(version.name))
        promotion = Promotion(
            action="promote",
            version=version.version,
            digest=manifest.digest,
            by=by,
            at=self._now(),
            note=note,
            engines=engines,
        )
        if before is not None and _same(before.serving, promotion):
            return before
        return self._write(version.name, before, promotion, seen)

    def roll_back(self, model: str, *, by: str, note: str = "") -> ServingRecord:
        """Restores the version that served before the last promotion, with its current engines. Raises RepositoryError
        if there is none or its files are missing or damaged, and StoreConflict.
        """
        record, seen = read_serving(self._store, _file(model))
        if record is None:
            raise RepositoryError(f"{self._store.where(model)}: no version was promoted; {promote_hint(model)}")
        target = record.before
        if target is None:
            raise RepositoryError(
                f"{self._store.where(model)}: no version served before {record.serving.version}, so there is "
                f"nothing to restore; {promote_hint(model)}"
            )
        version = Version(model, target.version)
        manifest = self._whole(version)
        if manifest.digest != target.digest:
            raise RepositoryError(
                f"{self._repository.where(version)} is model {manifest.digest}, and {target.digest} was promoted; "
                "a version must never change: restore its files"
            )
        restored = Promotion(
            action="rollback",
            version=target.version,
            digest=target.digest,
            by=by,
            at=self._now(),
            note=note,
            engines=self._engines(version)[0],
        )
        return self._write(model, record, restored, seen)

    def _whole(self, version: Version) -> ModelManifest:
        manifest = self._repository.manifest(version)
        if manifest is None:
            there = [entry.version for entry in self._repository.versions() if entry.name == version.name]
            raise RepositoryError(
                f"{self._repository.where(version)}: no such version (existing: {', '.join(there) or 'none'}); "
                "sluice build adds a model to a repository"
            )
        try:
            self._repository.check_files(version, manifest)
        except ManifestError as error:
            raise RepositoryError(str(error)) from error
        return manifest

    def _engines(self, version: Version) -> tuple[tuple[EngineParity, ...], list[str]]:
        """The version's engines with their parity reports, and the reasons why engines cannot serve."""
        records, damaged = self._repository.engines(version)
        problems = [str(error) for error in damaged]
        found = []
        for record in records:
            name = record.target.name
            parity = EngineParity(engine=name, digest=record.digest)
            try:
                digest = check_verified(self._repository, version, record)
            except Unverified as error:
                problems.append(str(error))
            else:
                path = f"{engine_folder(version, record.target)}/{PARITY_REPORT}".removeprefix(f"{version.folder}/")
                parity = EngineParity(engine=name, digest=record.digest, report=path, report_sha256=digest)
            found.append(parity)
        return tuple(found), problems

    def _write(self, model: str, before: ServingRecord | None, entry: Promotion, seen: bytes | None) -> ServingRecord:
        log = (*before.log, entry) if before is not None else (entry,)
        record = ServingRecord(model=model, log=log)
        content = (record.model_dump_json(by_alias=True, indent=2) + "\n").encode()
        self._store.replace(_file(model), content, seen=seen)
        return record


def promote_hint(model: str) -> str:
    """The command that chooses another version."""
    return f"choose one: sluice model promote {model} VERSION --repository …"


def _file(model: str) -> str:
    return f"{model}/{SERVING_NAME}"


def _same(serving: Promotion, wanted: Promotion) -> bool:
    return (serving.version, serving.digest, serving.engines) == (wanted.version, wanted.digest, wanted.engines)
