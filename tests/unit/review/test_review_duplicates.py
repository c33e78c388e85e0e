"""Which images count as near duplicates: measured on the samples, and the search for them on made-up vectors."""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas import ReviewItem
from tests.unit.review.review_bench import features, review_item
from worker.images.decode import decode
from worker.images.views import make_views
from worker.intake.log import Partition
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.duplicates import Vector, unit_vector
from worker.review.placed import Placed
from worker.samples.degrade import DEGRADATIONS
from worker.scoring.model import load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.settings import ReviewSettings

SAMPLES = sorted(Path("worker/samples/images").iterdir())[::3]
THRESHOLD = ReviewSettings().duplicate_cosine

Copy = Callable[[Image.Image], bytes]


def _jpeg_85(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def embed() -> Callable[[list[bytes]], tuple[list[Vector], np.ndarray]]:
    """The unit vectors and the quality of encoded images, by the model that ships."""
    model = load_model("mst-lite")
    engine = OpenVinoEngine(model, threads=1)

    def vectors(images: list[bytes]) -> tuple[list[Vector], np.ndarray]:
        views = [make_views(decode(data, max_pixels=10**7), model.manifest.views) for data in images]
        towers: Mapping[str, np.ndarray] = engine.infer({name: np.stack([v[name] for v in views]) for name in views[0]})
        found = []
        for row in range(len(images)):
            vector = unit_vector({name: values[row].astype("<f2").tobytes() for name, values in towers.items()})
            assert vector is not None
            found.append(vector)
        return found, np.array([score.quality for score in model.heads.score(towers)])

    return vectors


def test_a_copy_saved_again_is_near_and_other_images_and_spoiled_copies_are_not(
    embed: Callable[[list[bytes]], tuple[list[Vector], np.ndarray]],
) -> None:
    originals = [path.read_bytes() for path in SAMPLES]
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in originals]
    vectors, quality = (np.stack(values) for values in embed(originals))
    between = vectors @ vectors.T
    assert between[~np.eye(len(vectors), dtype=bool)].max() < THRESHOLD
    again = np.stack(embed([_jpeg_85(image) for image in images])[0])
    assert (vectors * again).sum(1).min() >= THRESHOLD
    for spoil in DEGRADATIONS.values():  # where that costs quality, the copy deserves a judgement of its own
        spoiled, spoiled_quality = (np.stack(values) for values in embed([spoil(image) for image in images]))
        near = (vectors * spoiled).sum(1) >= THRESHOLD
        assert near.mean() <= 0.2
        assert (quality - spoiled_quality)[near].max(initial=0) < 0.3


@contextmanager
def clusters(folder: Path, cosine: float) -> Iterator[Callable[[ReviewItem], str]]:
    """Takes an item into a catalogue, and tells its cluster."""
    offsets = itertools.count()
    partition = Partition("images.review", 0)
    with closing(Catalogue(folder / "catalogue.sqlite", ReviewSettings(duplicate_cosine=cosine))) as catalogue:

        def join(item: ReviewItem) -> str:
            catalogue.take([Placed(item, partition, next(offsets))], [], {})
            return catalogue.entries([item.item_id])[item.item_id].cluster

        yield join


def test_the_search_finds_what_is_near_and_only_that(tmp_path: Path) -> None:
    """Against every pair compared: 200 groups of vectors at known cosines."""
    random = np.random.default_rng(3)
    found = 0
    with clusters(tmp_path, 0.98) as join:
        for group in range(200):
            centre = random.normal(size=64)
            centre /= np.linalg.norm(centre)
            away = random.normal(size=64)
            away -= (away @ centre) * centre
            away /= np.linalg.norm(away)
            near = 0.99 * centre + np.sqrt(1 - 0.99**2) * away
            far = 0.95 * centre - np.sqrt(1 - 0.95**2) * away
            for name, vector in (("centre", centre), ("near", near), ("far", far)):
                cluster = join(review_item(f"{group}-{name}", features=features(list(vector))))
                if name == "near":
                    found += cluster == f"{group}-centre"
                    assert cluster in (f"{group}-centre", f"{group}-near")
                else:
                    assert cluster == f"{group}-{name}"
    assert found >= 190


def test_equal_files_are_found_without_features_and_broken_features_hurt_nobody(tmp_path: Path) -> None:
    digest = "sha256:" + "2" * 64
    odd = [{}, {"coarse": b"abc"}, {"coarse": b""}, {"coarse": b"\x00\x7c" * 4}, {"coarse": b"\x00\x00" * 4}]
    with clusters(tmp_path, 1.0) as join:
        for number, broken in enumerate(odd):
            item = review_item(f"i{number}", content_hash=digest, features=broken)
            assert unit_vector(item.features) is None
            assert join(item) == "i0"


def test_without_a_threshold_only_equal_files_are_together(tmp_path: Path) -> None:
    with clusters(tmp_path, 1.0) as join:
        for name in ("a", "b"):
            assert join(review_item(name, features=features([1, 2, 3]), content_hash="sha256:" + name * 64)) == name
