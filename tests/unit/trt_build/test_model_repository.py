"""A model repository in a folder: whole or not at all, whatever happens in between."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trt_build.towers import write_model
from worker.scoring.engine_record import BatchProfile, EngineRecord, Target
from worker.scoring.manifest import FileSpec, ManifestError, load_manifest
from worker.scoring.model import find_model, load_model
from worker.scoring.open_store import open_store
from worker.scoring.repository import DamagedEngine, Repository, Version
from worker.scoring.stores import FolderStore, RepositoryError
from worker.settings import S3Settings

TARGET = Target(backend="tensorrt-rtx", compute_capability="8.9", precision="fp16")
TINY = Version("tiny", "1")


class MemoryStore:
    """A store that dies after so many writes and deletions, as a process does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left: int | None = None

    def where(self, name: str) -> str:
        return f"memory:{name}"

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self._live()
        self.files[name] = data

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.files if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self._live()
        self.files.pop(name, None)

    def _live(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1


def engine(data: bytes) -> tuple[EngineRecord, dict[str, bytes]]:
    digest = hashlib.sha256(data).hexdigest()
    record = EngineRecord(
        schema="sluice.engine/1",
        target=TARGET,
        backend_version="1.7.1",
        model="sha256:a",
        profile=BatchProfile(),
        files=(FileSpec(path=f"{digest}.engine", sha256=digest),),
        bytes=len(data),
        built_at=datetime(2026, 1, 1, tzinfo=UTC),
        build_seconds=1,
    )
    return record, {f"{digest}.engine": data}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def test_a_published_model_is_listed_and_found_by_its_version(tmp_path: Path) -> None:
    repository = Repository(FolderStore(tmp_path / "models"))
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        repository.publish(write_model(tmp_path / version, version=version))
    assert [entry.version for entry in repository.versions()] == ["1.2.0", "1.9.0", "1.10.0"]
    assert load_model(str(tmp_path / "models" / "tiny" / "1.2.0")).manifest.version == "1.2.0"


def test_publishing_again_changes_nothing(model: Path) -> None:
    store = MemoryStore()
    Repository(store).publish(model)
    store.left = 0
    assert Repository(store).publish(model) == TINY


def test_another_model_under_the_same_version_is_refused(tmp_path: Path, model: Path) -> None:
    repository = Repository(MemoryStore())
    repository.publish(model)
    with pytest.raises(RepositoryError, match="a version never changes: give the new model a new version"):
        repository.publish(write_model(tmp_path / "other", seed=1))
    assert repository.manifest(TINY) == load_manifest(model)


def test_a_damaged_file_is_never_published(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "towers.onnx").write_bytes(b"damaged")
    store = MemoryStore()
    with pytest.raises(RepositoryError, match=r"towers\.onnx: does not match the manifest's sha256"):
        Repository(store).publish(folder)
    assert store.files == {}


@given(writes=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_publication_broken_off_anywhere_is_unseen_until_it_is_finished(model: Path, writes: list[int]) -> None:
    store = MemoryStore()
    for left in writes:
        store.left = left
        try:
            Repository(store).publish(model)
        except KeyboardInterrupt:
            assert Repository(store).versions() == []
    store.left = None
    Repository(store).publish(model)
    assert Repository(store).versions() == [TINY]
    names = {"manifest.json", "towers.onnx", "heads.safetensors"}
    assert {name: store.files[f"tiny/1/{name}"] for name in names} == {
        name: (model / name).read_bytes() for name in names
    }


@given(
    builds=st.lists(st.tuples(st.binary(min_size=1, max_size=4), st.none() | st.integers(0, 3)), min_size=1, max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_a_reader_always_finds_a_whole_engine_the_old_or_the_new(builds: list[tuple[bytes, int | None]]) -> None:
    store = MemoryStore()
    repository = Repository(store)
    possible: set[bytes] = set()
    for data, left in builds:
        store.left = left
        before = set(possible)
        try:
            repository.publish_engine(TINY, *engine(data))
            possible = {data}
        except KeyboardInterrupt:
            possible = before | {data}
        record = repository.engine(TINY, TARGET)
        if record is None:
            assert before == set()
            possible = set()
            continue
        [found] = repository.engine_files(TINY, record)
        assert found in possible
        possible = {found}


def test_a_rebuilt_engine_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    repository = Repository(FolderStore(tmp_path))
    repository.publish_engine(TINY, *engine(b"old"))
    repository.publish_engine(TINY, *engine(b"new"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".engine", ".json"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"ol"), "is damaged"),
    ],
)
def test_an_engine_file_that_is_not_what_was_built_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    repository = Repository(FolderStore(tmp_path))
    record, files = engine(b"old")
    repository.publish_engine(TINY, record, files)
    spoil(next(tmp_path.rglob("*.engine")))
    with pytest.raises(RepositoryError, match=rf"{message}.*build it again with --rebuild"):
        repository.engine_files(TINY, record)


def test_a_record_that_is_no_record_is_told_where_it_lies(tmp_path: Path) -> None:
    repository = Repository(FolderStore(tmp_path))
    repository.publish_engine(TINY, *engine(b"old"))
    file = next(tmp_path.rglob("engine.json"))
    file.write_text(json.dumps({"schema": "sluice.engine/2"}))
    with pytest.raises(DamagedEngine, match=r"engine\.json is damaged: .*build it again with --rebuild"):
        repository.engine(TINY, TARGET)


def test_a_damaged_record_hides_no_other_engine_and_gives_way_to_a_new_one(tmp_path: Path) -> None:
    repository = Repository(FolderStore(tmp_path))
    record, files = engine(b"sound")
    repository.publish_engine(TINY, record, files)
    folder = next(tmp_path.rglob("engine.json")).parent
    shutil.copytree(folder, folder.with_name("somewhere-else"))
    other = folder.with_name("openvino-fp32")
    other.mkdir()
    (other / "engine.json").write_bytes((folder / "engine.json").read_bytes()[:100])
    found, damaged = repository.engines(TINY)
    assert found == [record]
    said = [str(error) for error in damaged]
    assert ["openvino-fp32/engine.json is damaged" in said[0], f"belongs to engine {TARGET.name}" in said[1]] == [
        True,
        True,
    ]

    again = record.model_copy(update={"target": Target(backend="openvino", precision="fp32")})
    repository.publish_engine(TINY, again, files)
    assert {each.target.name for each in repository.engines(TINY)[0]} == {"openvino-fp32", TARGET.name}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match=r"cannot be written: (Not a directory|File exists)"):
        FolderStore(tmp_path / "file").write("a/b", b"")


def test_a_folder_that_may_not_be_read_is_told_and_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(FolderStore(tmp_path))
    repository.publish_engine(TINY, *engine(b"there"))
    listed = os.scandir

    def forbidden(path: str) -> object:
        """As the system answers anybody but root, who may run the tests."""
        if Path(path).name == TARGET.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    monkeypatch.setattr("os.scandir", forbidden)
    with pytest.raises(RepositoryError, match=rf"{TARGET.name}: cannot be read: Permission denied"):
        repository.engines(TINY)
    assert FolderStore(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize("place", ["gs://bucket/models", "s3://", "https://example.com/models"])
def test_an_address_that_is_no_store_is_refused(place: str) -> None:
    with pytest.raises(RepositoryError, match="use a folder or s3://bucket/prefix"):
        open_store(place, S3Settings())
    with pytest.raises(ManifestError, match="is not a model repository"):
        find_model(place)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        find_model(str(tmp_path))
