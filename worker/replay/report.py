"""The report of a replay: one HTML page with the changed images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from worker.charts import Axis, Bar, Chart, Tick
from worker.html_report.pages import render, write_page
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


def delta_chart(deltas: Sequence[int]) -> Chart:
    """The histogram of changes of quality; `deltas` are the comparison's bins of half a point."""
    middle = DELTA_BINS // 2
    bars = [
        Bar(
            at - 0.25,
            at + 0.25,
            0,
            count,
            "var(--accent)",
            f"{at:+.1f}: {count} events" if at else f"0: {count} events",
        )
        for at, count in (((index - middle) / 2, count) for index, count in enumerate(deltas))
    ]
    ends = middle / 2
    ticks = [Tick(bar.left + 0.25, f"{bar.left + 0.25:+.1f}" if bar.left + 0.25 else "0") for bar in bars]
    return Chart(
        "Number of events by change of quality, from minus 4 to plus 4",
        Axis("", -ends - 0.25, ends + 0.25, ticks),
        Axis.from_zero("", max(1, *deltas), whole=True),
        bars=bars,
        width=640,
        height=140,
    )


def write_report(
    path: Path, request: ReplayRequest, comparison: ReplayComparison, cards: Sequence[ChangeCard], created_at: datetime
) -> None:
    """Writes the page, whole or not at all, and the folders above it. Raises OSError."""
    page = render(
        "worker.replay",
        "comparison.html.j2",
        request=request,
        comparison=comparison,
        compared=comparison.replayed - comparison.without_past,
        routes=sorted(comparison.routes.items(), key=lambda pair: (pair[0][0] == pair[0][1], -pair[1])),
        cards=cards,
        chart=delta_chart(comparison.deltas),
        created_at=created_at,
    )
    write_page(path, page)


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
