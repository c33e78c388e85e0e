"""The pictures of a replay's report."""

import io
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from schemas import ImageEvent, InlineReference
from worker.images.fetch.base import FetchedImage
from worker.intake.log import Partition, Record
from worker.replay.comparison import EventSource, JudgementChange, PastJudgement
from worker.replay.report import pictures


def moving() -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("white", "black", "white")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


class Topic:
    """One event with the image inside."""

    def record(self, partition: Partition, offset: int) -> Record | None:
        event = ImageEvent(id="a", occurred_at=datetime.now(UTC), image=InlineReference(bytes=moving()))
        return Record(partition, offset, event.model_dump_json(by_alias=True).encode())


class InlineFetcher:
    def fetch(self, reference: Any) -> FetchedImage:
        return FetchedImage(reference.bytes)


def test_an_animation_is_shown_by_the_frame_that_decides_now() -> None:
    before = PastJudgement("pass", "default", 4.0, None, "m", "p")
    change = JudgementChange(EventSource(0, 7, 0), "a", "acme", before, before._replace(quality=1.0, frame=1))
    topic: Any = Topic()
    fetcher: Any = InlineFetcher()
    (card,) = pictures([change], topic, "images.in", fetcher, 10_000)
    assert card.picture is not None
    with Image.open(io.BytesIO(card.picture)) as shown:
        assert shown.convert("L").getpixel((5, 5)) < 20, "the black one"  # type: ignore[operator]
