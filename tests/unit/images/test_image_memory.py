"""What images take of the memory that all threads share."""

import gc
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas import FileReference
from tests.unit.images.made_images import encoded, jpeg, picture
from worker.images import decode as decoding
from worker.images.decode import DecodeLimits, decode, decoded
from worker.images.errors import ImageError
from worker.images.fetch.base import SMALL_BYTES, ImageBody
from worker.images.fetch.file import FileFetcher
from worker.images.jpeg import HUGE_PIXELS
from worker.images.memory import MemoryBudget
from worker.images.views import least_side, make_views
from worker.settings import ImageSettings
from worker.view import ViewSpec

PATIENCE = 60.0
LARGE = SMALL_BYTES + 1


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def _small_memory() -> Iterator[None]:
    decoding.DECODE_MEMORY.resize(200_000)
    yield
    decoding.DECODE_MEMORY.resize(ImageSettings().decode_memory_bytes)


@pytest.mark.usefixtures("_small_memory")
def test_an_image_holds_its_memory_until_its_views_are_made() -> None:
    data = encoded(picture(120, 120), "PNG")
    entered = threading.Event()

    def second() -> None:
        with decoded(data, DecodeLimits(10**6)):
            entered.set()

    with decoded(data, DecodeLimits(10**6)):
        thread = threading.Thread(target=second)
        thread.start()
        eventually(lambda: bool(decoding.DECODE_MEMORY._queue))
        assert not entered.is_set()
    thread.join(PATIENCE)
    assert entered.is_set()
    assert decoding.DECODE_MEMORY._taken == 0


@pytest.mark.usefixtures("_small_memory")
def test_an_image_that_cannot_be_decoded_gives_its_memory_back() -> None:
    with pytest.raises(ImageError):
        decode(jpeg(picture(120, 120))[:600], max_pixels=10**6)
    with pytest.raises(ValueError, match="of the views"), decoded(jpeg(), DecodeLimits(10**6)):
        raise ValueError("of the views")
    assert decoding.DECODE_MEMORY._taken == 0


def test_large_bodies_share_memory_and_give_it_back_with_the_image() -> None:
    memory = MemoryBudget(2 * LARGE)
    with ImageBody(memory, 10 * LARGE, "a.png", LARGE) as body:
        assert memory._taken == 2 * LARGE, "in chunks and as a whole, for a moment"
        body.add(bytes(LARGE))
        image = body.image("e")
    waiting = threading.Thread(target=lambda: ImageBody(memory, 10 * LARGE, "b.png", LARGE).__exit__(None, None, None))
    waiting.start()
    eventually(lambda: bool(memory._queue))
    assert (len(image.data), image.etag, memory._taken) == (LARGE, "e", LARGE)
    del image
    gc.collect()
    waiting.join(PATIENCE)
    assert memory._taken == 0


def test_a_body_of_unknown_size_takes_as_much_as_it_may_have_once_it_is_large() -> None:
    memory = MemoryBudget(10 * LARGE)
    with ImageBody(memory, 3 * LARGE, "a.png", None) as body:
        body.add(bytes(SMALL_BYTES))
        assert memory._taken == 0
        body.add(b"x")
        assert memory._taken == 2 * 3 * LARGE
    assert memory._taken == 0


def test_a_small_body_waits_for_no_memory() -> None:
    memory = MemoryBudget(1)
    memory.take(1)
    with ImageBody(memory, LARGE, "a.png", SMALL_BYTES) as body:
        body.add(bytes(SMALL_BYTES))
        assert len(body.image().data) == SMALL_BYTES


def test_files_are_read_within_the_memory_of_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(LARGE))
    memory = MemoryBudget(2 * LARGE)
    fetcher = FileFetcher((tmp_path,), max_bytes=10 * LARGE, memory=memory)
    image = fetcher.fetch(FileReference(path="a"))
    assert (len(image.data), memory._taken) == (LARGE, LARGE)
    del image
    gc.collect()
    assert memory._taken == 0


@pytest.mark.parametrize(("resize", "expected"), [("shortest_side", 448), ("squash", 448), ("none", None)])
def test_the_side_that_is_enough_follows_from_the_views(resize: str, expected: int | None) -> None:
    spec = ViewSpec(size=224, resize="shortest_side", mean=(0, 0, 0), std=(1, 1, 1))
    other = spec.model_copy(update={"resize": resize})
    assert least_side({"a": spec, "b": other}) == expected


def test_a_huge_jpeg_is_decoded_at_the_scale_that_its_views_need() -> None:
    wide = picture(64, 32).resize((6400, 3200), Image.Resampling.BICUBIC)
    assert wide.width * wide.height > HUGE_PIXELS
    buffer = io.BytesIO()
    wide.save(buffer, "JPEG", quality=90)
    limits = DecodeLimits(100_000_000)
    views = {"coarse": ViewSpec(size=224, resize="shortest_side", mean=(0, 0, 0), std=(1, 1, 1))}
    with decoded(buffer.getvalue(), limits, least_side=least_side(views)) as shown:
        small = next(shown.pixels)
        shape, scaled = small.shape, make_views(small, views)["coarse"]
    with decoded(buffer.getvalue(), limits) as shown:
        whole = next(shown.pixels)
        assert whole.shape == (3200, 6400, 3)
        exact = make_views(whole, views)["coarse"]
    assert 448 <= shape[0] < 3200
    assert np.abs(scaled.astype(int) - exact).mean() < 1


def test_an_upscaled_8k_image_is_within_the_limits() -> None:
    limits = ImageSettings()
    assert limits.max_pixels >= 8192 * 8192
    assert limits.max_bytes >= 92 * 1024 * 1024
