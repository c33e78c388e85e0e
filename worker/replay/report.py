"""The report of a replay: one HTML page with pictures of what came out differently."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from worker.atomic_files import write_atomically
from worker.images.decode import decode
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.base import Fetcher
from worker.images.thumbnail import thumbnail
from worker.intake.log import Partition
from worker.intake.parse import MalformedRecord, parse
from worker.intake.topic_reader import TopicReader
from worker.replay.comparison import DELTA_BINS, JudgementChange, ReplayComparison
from worker.replay.window import ReplayRequest

PICTURES = 60


@dataclass(frozen=True, slots=True)
class ChangeCard:
    """A change with its picture, where the image can still be fetched."""

    change: JudgementChange
    picture: bytes | None


def pictures(
    changes: Sequence[JudgementChange],
    reader: TopicReader,
    topic: str,
    fetcher: Fetcher,
    max_pixels: int,
    on_progress: Callable[[], None] = lambda: None,
) -> list[ChangeCard]:
    """The largest changes with a thumbnail each. Raises LogError."""
    cards = []
    for change in changes[:PICTURES]:
        cards.append(ChangeCard(change, _picture(change, reader, topic, fetcher, max_pixels)))
        on_progress()
    return cards


def write_report(
    path: Path, request: ReplayRequest, comparison: ReplayComparison, cards: Sequence[ChangeCard], created_at: datetime
) -> None:
    """Writes the page, whole or not at all, and the folders above it. Raises OSError."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # installed by the extra `report`

    environment = Environment(
        loader=PackageLoader("worker.replay", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda digest: digest.removeprefix("sha256:")[:12]
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["data_uri"] = lambda jpeg: "data:image/jpeg;base64," + b64encode(jpeg).decode("ascii")
    highest = max(1, *comparison.deltas)
    bars = [
        (index, number / highest * 100, (index - DELTA_BINS // 2) / 2, number)
        for index, number in enumerate(comparison.deltas)
    ]
    page = environment.get_template("comparison.html.j2").render(
        request=request,
        comparison=comparison,
        compared=comparison.replayed - comparison.without_past,
        routes=sorted(comparison.routes.items(), key=lambda pair: (pair[0][0] == pair[0][1], -pair[1])),
        cards=cards,
        bars=bars,
        created_at=created_at,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode())


def _picture(
    change: JudgementChange, reader: TopicReader, topic: str, fetcher: Fetcher, max_pixels: int
) -> bytes | None:
    """By the frame that decides now."""
    source = change.source
    record = reader.record(Partition(topic, source.partition), source.offset)
    if record is None:
        return None
    try:
        event = parse(record).events[source.event]
        return thumbnail(decode(fetcher.fetch(event.image).data, max_pixels=max_pixels, frame=change.after.frame))
    except (MalformedRecord, IndexError, ImageError, TransientFetchError):
        return None
