"""Maps are computed once, kept by what they depend on, and found again."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="training needs the extra `train`")

from rich.progress import Progress  # noqa: E402

from worker.model.backbone import EfficientNetLite0  # noqa: E402
from worker.model.data import SAMPLES, Example  # noqa: E402
from worker.model.maps import WINDOWS, MapStore  # noqa: E402
from worker.model.network import GRID, MAP_CHANNELS  # noqa: E402


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    torch.manual_seed(1)
    return EfficientNetLite0().eval()


def samples(count: int) -> list[Example]:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    return [Example(SAMPLES / "images" / name, 3.0, "some", name, "g") for name in names[:count]]


def store(backbone: EfficientNetLite0, examples: Sequence[Example], folder: Path) -> MapStore:
    return MapStore(backbone, examples, folder, Progress(disable=True), workers=2)


def test_each_variant_and_damage_has_maps_of_its_own(backbone: EfficientNetLite0, tmp_path: Path) -> None:
    maps = store(backbone, samples(2), tmp_path)
    intact, varied, (mild, worse) = maps.varied(0), maps.varied(1), maps.damaged()

    assert {each.shape for each in (intact, varied, mild, worse)} == {(2, WINDOWS, MAP_CHANNELS, GRID, GRID)}
    for other in (varied, mild, worse):
        assert all((other[row] != intact[row]).any() for row in range(2))
    assert (mild != worse).any()


def test_a_run_that_was_cut_off_finds_what_it_had_and_other_images_get_their_own(
    backbone: EfficientNetLite0, tmp_path: Path
) -> None:
    first = store(backbone, samples(2), tmp_path).damaged()
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = store(backbone, samples(2), tmp_path).damaged()
    np.testing.assert_array_equal(first, again)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == kept

    store(backbone, samples(1), tmp_path).varied(0)
    assert len(list(tmp_path.iterdir())) == len(kept) + 1
