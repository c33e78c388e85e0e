"""The model repository: `<model>/<version>/` with manifest, graph, heads, engines and reports.

mst-lite/serving.json                                            which version serves (serving_record.py)
mst-lite/0.1.0/manifest.json                                     written last: without it, there is no such version
mst-lite/0.1.0/towers.onnx, heads.safetensors
mst-lite/0.1.0/engines/tensorrt-rtx-sm89-fp16/engine.json        the record, written last
mst-lite/0.1.0/engines/tensorrt-rtx-sm89-fp16/<sha256>.engine    named by content: a rebuild never changes a file
mst-lite/0.1.0/engines/tensorrt-rtx-sm89-fp16/parity.{json,html}, build.{json,html}
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from worker.scoring.engine_record import EngineRecord, Target
from worker.scoring.manifest import MANIFEST_NAME, FileSpec, ManifestError, ModelManifest, explain, load_manifest
from worker.scoring.serving_record import SERVING_NAME, read_serving
from worker.scoring.stores import FileStore, FolderStore, RepositoryError

RECORD_NAME = "engine.json"


class DamagedEngine(RepositoryError):
    """An engine's record or file is damaged. Other engines can still be used."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model in the repository."""

    name: str
    version: str

    @property
    def folder(self) -> str:
        return f"{self.name}/{self.version}"


class Repository:
    """A model repository in a store. Versions and engines are published atomically: a reader sees all of one or
    nothing. Run an interrupted operation again to finish it. Methods raise RepositoryError.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def versions(self) -> list[Version]:
        """All versions by model name, newest last."""
        found = []
        for name in self._store.names():
            model, _, rest = name.partition("/")
            version, _, file = rest.partition("/")
            if file == MANIFEST_NAME:
                found.append(Version(model, version))
        return sorted(found, key=lambda entry: (entry.name, _order(entry.version)))

    def manifest(self, version: Version) -> ModelManifest | None:
        """The version's manifest; None if there is no such version."""
        name = f"{version.folder}/{MANIFEST_NAME}"
        text = self._store.read(name)
        if text is None:
            return None
        try:
            return ModelManifest.model_validate_json(text)
        except ValidationError as error:
            raise RepositoryError(
                f"{self._store.where(name)} is damaged: {explain(error)}; remove it and publish the model again: "
                "sluice build"
            ) from error

    def publish(self, path: Path) -> Version:
        """Publishes the model of a manifest file. Idempotent, and finishes an interrupted publication. A version never
        changes: a different model with the same name and version is refused.
        """
        manifest = load_manifest(path)
        version = Version(manifest.name, manifest.version)
        there = self.manifest(version)
        if there is not None and there.digest != manifest.digest:
            raise RepositoryError(
                f"{self._store.where(version.folder)} is model {there.digest}, this one is {manifest.digest}; "
                "a version never changes: give the new model a new version"
            )
        folder = path if path.is_dir() else path.parent
        for spec in manifest.files:
            self._write_once(f"{version.folder}/{spec.path}", spec, _read(folder, spec))
        if there is None:
            self._store.write(f"{version.folder}/{MANIFEST_NAME}", _read_manifest(folder, path))
        return version

    def check_files(self, version: Version, manifest: ModelManifest) -> None:
        """Raises ManifestError if a file of the version's model is missing or does not match the manifest."""
        for spec in manifest.files:
            name = f"{version.folder}/{spec.path}"
            data = self._store.read(name)
            if data is None or hashlib.sha256(data).hexdigest() != spec.sha256:
                problem = "is gone" if data is None else "is damaged: its sha256 does not match"
                raise ManifestError(f"{self._store.where(name)} {problem}; publish the model again: sluice build")

    def where(self, version: Version) -> str:
        """The version's address, for messages."""
        return self._store.where(version.folder)

    def engines(self, version: Version) -> tuple[list[EngineRecord], list[DamagedEngine]]:
        """The version's engines by name, and the problems of damaged ones."""
        place = f"{version.folder}/engines/"
        found: list[EngineRecord] = []
        damaged: list[DamagedEngine] = []
        for name in self._store.names(place):
            folder, _, file = name.removeprefix(place).partition("/")
            if file != RECORD_NAME:
                continue
            try:
                record = self._record(place + folder)
            except DamagedEngine as error:
                damaged.append(error)
                continue
            if record is not None:
                found.append(record)
        return found, damaged

    def engine(self, version: Version, target: Target) -> EngineRecord | None:
        """The version's engine for a target; None if there is none. Raises DamagedEngine."""
        return self._record(engine_folder(version, target))

    def engine_files(self, version: Version, record: EngineRecord) -> list[bytes]:
        """The engine's files in the record's order, checked against their digests."""
        folder = engine_folder(version, record.target)
        files = []
        for spec in record.files:
            where = self._store.where(f"{folder}/{spec.path}")
            data = self._store.read(f"{folder}/{spec.path}")
            if data is None:
                raise DamagedEngine(f"{where} is missing, but {RECORD_NAME} names it; build it again with --rebuild")
            if hashlib.sha256(data).hexdigest() != spec.sha256:
                raise DamagedEngine(f"{where} is damaged: its sha256 does not match; build it again with --rebuild")
            files.append(data)
        return files

    def publish_engine(self, version: Version, record: EngineRecord, files: Mapping[str, bytes]) -> None:
        """Publishes an engine and replaces an earlier one. `files`: content by the name in the record."""
        folder = engine_folder(version, record.target)
        try:
            before = self.engine(version, record.target)
        except DamagedEngine:
            before = None
        for spec in record.files:
            self._store.write(f"{folder}/{spec.path}", files[spec.path])
        self._store.write(f"{folder}/{RECORD_NAME}", _json(record))
        kept = {spec.path for spec in record.files}
        for spec in before.files if before is not None else ():
            if spec.path not in kept:
                self._store.delete(f"{folder}/{spec.path}")

    def write_report(self, version: Version, target: Target, name: str, text: str) -> str:
        """Stores a report beside an engine and returns its address."""
        file = f"{engine_folder(version, target)}/{name}"
        self._store.write(file, text.encode())
        return self._store.where(file)

    def read_report(self, version: Version, target: Target, name: str) -> str | None:
        data = self._store.read(f"{engine_folder(version, target)}/{name}")
        return None if data is None else data.decode()

    def read_cache(self, name: str) -> bytes | None:
        """A file that builds reuse, such as TensorRT's timing cache."""
        return self._store.read(f".cache/{name}")

    def write_cache(self, name: str, data: bytes) -> None:
        self._store.write(f".cache/{name}", data)

    def _record(self, folder: str) -> EngineRecord | None:
        name = f"{folder}/{RECORD_NAME}"
        text = self._store.read(name)
        if text is None:
            return None
        again = "build it again with --rebuild"
        try:
            record = EngineRecord.model_validate_json(text)
        except ValidationError as error:
            raise DamagedEngine(f"{self._store.where(name)} is damaged: {explain(error)}; {again}") from error
        if not folder.endswith(f"/{record.target.name}"):
            raise DamagedEngine(
                f"{self._store.where(name)} belongs to engine {record.target.name}; remove it, or {again}"
            )
        return record

    def _write_once(self, name: str, spec: FileSpec, data: bytes) -> None:
        there = self._store.read(name)
        if there is None or hashlib.sha256(there).hexdigest() != spec.sha256:
            self._store.write(name, data)


def engine_folder(version: Version, target: Target) -> str:
    return f"{version.folder}/engines/{target.name}"


def fetch_model(store: FileStore, cache: Path) -> Path:
    """The manifest of the model in a store: the one at the top, or that of the promoted version. A model in a local
    folder is used in place; others are copied below `cache` once. Raises ManifestError if there is no model or no
    promoted version, or if it cannot be copied, and RepositoryError if the store fails.
    """
    top = MANIFEST_NAME if store.read(MANIFEST_NAME) is not None else _promoted(store)
    if isinstance(store, FolderStore):
        return store.folder / top
    text = store.read(top) or b""
    copies = FolderStore(cache / hashlib.sha256(text).hexdigest())
    try:
        manifest = ModelManifest.model_validate_json(text)
    except ValidationError as error:
        raise ManifestError(f"{store.where(top)}: not a manifest: {explain(error)}") from error
    for spec in manifest.files:
        there = copies.read(spec.path)
        if there is None or hashlib.sha256(there).hexdigest() != spec.sha256:
            data = store.read(top.removesuffix(MANIFEST_NAME) + spec.path)
            if data is None:
                raise ManifestError(f"{store.where(top)} names {spec.path}, which is missing; publish it again")
            copies.write(spec.path, data)
    copies.write(MANIFEST_NAME, text)
    return copies.folder / MANIFEST_NAME


def _promoted(store: FileStore) -> str:
    """The manifest of the serving version, in a store of a model's versions. Raises ManifestError."""
    record, _ = read_serving(store)
    if record is None:
        tops = [name for name in store.names() if re.fullmatch(rf"[^/]+/{re.escape(MANIFEST_NAME)}", name)]
        there = sorted((name.removesuffix(f"/{MANIFEST_NAME}") for name in tops), key=_order)
        if not there:
            raise ManifestError(
                f"{store.where('')}: no model here; use a folder with a {MANIFEST_NAME} or with promoted versions"
            )
        raise ManifestError(
            f"{store.where('')}: no version was promoted (existing: {', '.join(there)}); promote one with sluice "
            f"model promote, or name one: {store.where(there[-1])}"
        )
    top = f"{record.serving.version}/{MANIFEST_NAME}"
    manifest = store.read(top)
    if manifest is None:
        raise ManifestError(
            f"{store.where(top)} is missing, but {SERVING_NAME} names it; restore it, or promote another version"
        )
    try:
        digest = ModelManifest.model_validate_json(manifest).digest
    except ValidationError as error:
        raise ManifestError(f"{store.where(top)}: not a manifest: {explain(error)}") from error
    if digest != record.serving.digest:
        raise ManifestError(f"{store.where(top)} is model {digest}, and {record.serving.digest} was promoted to serve")
    return top


def cache_folder(kind: str) -> Path:
    """The cache folder for a kind of file: `sluice/KIND` below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice" / kind


def _order(version: str) -> list[tuple[int, int, str]]:
    """A sort key that orders 0.10.0 after 0.9.1: numbers by value, after all words."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _read(folder: Path, spec: FileSpec) -> bytes:
    file = folder / spec.path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RepositoryError(f"{file}: cannot be read: {error.strerror}; the manifest names it") from error
    if hashlib.sha256(data).hexdigest() != spec.sha256:
        raise RepositoryError(f"{file}: does not match the manifest's sha256; export it again")
    return data


def _read_manifest(folder: Path, path: Path) -> bytes:
    return (folder / MANIFEST_NAME if path.is_dir() else path).read_bytes()


def _json(record: EngineRecord) -> bytes:
    return (record.model_dump_json(by_alias=True, indent=2) + "\n").encode()
