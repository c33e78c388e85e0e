"""Compiled graphs on disk: the next process starts faster, and nothing that is wrong with the cache is ever served."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from tests.unit.trt_build.towers import SIZE, write_model
from worker.scoring.blob_cache import KEPT, BlobCache
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(write_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def features(model: Model, folder: Path, **options: object) -> dict[str, np.ndarray]:
    """What an engine with this cache says of a picture."""
    picture = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    engine = OpenVinoEngine(model, threads=1, cache=BlobCache(folder), **options)  # type: ignore[arg-type]
    found = dict(engine.infer(dict.fromkeys(model.manifest.views, picture)))
    engine.close()
    return found


def blob(folder: Path) -> Path:
    [path] = folder.glob("*.blob")
    return path


def test_a_second_engine_reads_what_the_first_compiled_and_computes_the_same(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = features(model, folder)
    monkeypatch.setattr(ov.Core, "compile_model", None)
    second = features(model, folder)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("damage", [b"", b"short", b"\x00" * 5000])
def test_a_damaged_file_is_compiled_again_and_replaced(
    model: Model, folder: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = features(model, folder)
    blob(folder).write_bytes(damage)
    again = features(model, folder)
    monkeypatch.setattr(ov.Core, "compile_model", None)
    from_the_cache = features(model, folder)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert all(np.array_equal(first[name], from_the_cache[name]) for name in first)


def test_a_file_that_others_may_write_is_not_loaded(model: Model, folder: Path) -> None:
    features(model, folder)
    blob(folder).chmod(0o666)
    assert BlobCache(folder).read(["other"]) is None
    before = blob(folder).stat().st_ino
    features(model, folder)
    assert blob(folder).stat().st_ino != before
    assert blob(folder).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_costs_time_only(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert features(model, tmp_path / "file" / "cache")


def test_other_settings_and_models_have_files_of_their_own(model: Model, folder: Path, tmp_path: Path) -> None:
    features(model, folder)
    features(model, folder, precision="f32")
    features(load_model(str(write_model(tmp_path / "other", seed=1))), folder)
    assert len(list(folder.glob("*.blob"))) in (2, 3)  # without bf16, both precisions are the same


def test_the_folder_stays_small(folder: Path) -> None:
    cache = BlobCache(folder)
    for number in range(KEPT + 5):
        cache.write([str(number)], b"blob")
    assert len(list(folder.glob("*.blob"))) == KEPT
    assert cache.read([str(KEPT + 4)]) == b"blob"


def test_keys_whose_parts_are_split_otherwise_are_different(folder: Path) -> None:
    cache = BlobCache(folder)
    cache.write(["ab", "c"], b"blob")
    assert cache.read(["a", "bc"]) is None
