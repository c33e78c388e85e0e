from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from schemas import Failure, FailureReason, Route, Scores
from worker.demo.report.entry import ReportEntry
from worker.demo.report.page import ScoreReport, render, write_report
from worker.demo.report.score_charts import histogram, scatter
from worker.demo.report.tally import Tally
from worker.images.thumbnail import thumbnail

PASS = Route(action="pass", rule="r", labels=("fine",))
REVIEW = Route(action="review", queue="low-quality", rule="r")
PIXELS = np.zeros((300, 500, 3), np.uint8)
HOSTILE = "<script>alert(1)</script>\"'&.jpg"


class Page(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def entry(name: str, quality: float, route: Route = PASS, **more: object) -> ReportEntry:
    return ReportEntry(name, route, Scores(quality=quality), **more)  # type: ignore[arg-type]


def report(*entries: ReportEntry, keep: int = 100, ignored: int = 0) -> ScoreReport:
    tally = Tally(keep)
    for each in entries:
        tally.add(each)
    digest = "sha256:" + "ab" * 32
    now = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return ScoreReport("Scores", now, 1.5, "mst-lite 1", digest, "7", digest, tally, ignored, "A notice.")


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_no_script() -> None:
    page = Page(render(report(entry("a.jpg", 2.0, thumbnail=thumbnail(PIXELS)))))

    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_hostile_name_is_text_and_nothing_else() -> None:
    failure = Failure(reason=FailureReason.UNDECODABLE_IMAGE, message=HOSTILE)
    human = {"human": 3.0, "generator": HOSTILE, "thumbnail": thumbnail(PIXELS)}
    page = Page(render(report(entry(HOSTILE, 2.0, **human), ReportEntry(HOSTILE, REVIEW, None, failure))))

    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") >= 4
    assert {a["alt"] for tag, a in page.tags if tag == "img"} == {HOSTILE}


def test_images_come_worst_first() -> None:
    html = render(report(entry("middle.jpg", 3.0), entry("best.jpg", 4.5), entry("worst.jpg", 1.2)))

    assert html.index("worst.jpg") < html.index("middle.jpg") < html.index("best.jpg")


def test_images_beyond_the_kept_ones_are_counted() -> None:
    html = render(report(*(entry(f"{n}.jpg", 1 + n / 10) for n in range(9)), keep=3))

    assert "The 3 worst of 9 images" in html
    assert "8.jpg" not in html


def test_failures_are_listed_with_reason_and_message() -> None:
    failure = Failure(reason=FailureReason.IMAGE_TOO_LARGE, message="400,000,000 pixels")
    text = Page(render(report(ReportEntry("bomb.png", REVIEW, None, failure), ignored=1))).text

    assert "bomb.png" in text
    assert "image_too_large" in text
    assert "400,000,000 pixels" in text
    assert "1 event was a deletion" in text


def test_human_scores_are_shown_with_their_rank_correlation() -> None:
    entries = [entry(f"{n}.jpg", 1 + n, human=1.5 + n) for n in range(4)]
    text = " ".join(Page(render(report(*entries))).text.split())

    assert "Rank correlation (SRCC) 1.00 over 4 images" in text
    assert "people 2.50" in text


def test_without_human_scores_there_is_no_comparison() -> None:
    assert "Model and people" not in render(report(entry("a.jpg", 2.0)))


def test_degraded_copies_stand_beside_their_original() -> None:
    page = render(
        report(
            entry("a.jpg", 4.0),
            entry("a.blur.jpg", 2.5, original="a.jpg", degradation="blur"),
            entry("a.noise.jpg", 4.25, original="a.jpg", degradation="noise"),
        )
    )
    text = " ".join(Page(page).text.split())

    assert "blur\N{MINUS SIGN}1.50 on average,lower in 1 of 1" in text
    assert "noise+0.25 on average,lower in 0 of 1" in text


def test_a_run_without_any_scored_image_still_makes_a_page() -> None:
    failure = Failure(reason=FailureReason.FETCH_FAILED, message="gone")

    assert "gone" in render(report(ReportEntry("a.jpg", REVIEW, None, failure)))
    assert "0 verdicts in" in " ".join(Page(render(report())).text.split())


def test_a_report_is_written_below_new_folders_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(report(entry("first.jpg", 2.0)), path)
    write_report(report(entry("second.jpg", 2.0)), path)

    assert "second.jpg" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_bars_are_as_high_as_their_counts_and_stand_on_each_other() -> None:
    tally = Tally(10)
    for route in (PASS, PASS, REVIEW):
        tally.add(entry("x", 3.1, route))
    chart = histogram(tally.bins)

    review, passed = chart.bars
    assert (review.colour, passed.colour) == ("var(--review)", "var(--pass)")
    assert (review.bottom, review.top) == (0, 1)
    assert (passed.bottom, passed.top) == (1, 3)
    assert review.left <= 3.1 < review.right


def test_dots_stand_at_human_and_model_score() -> None:
    (dot,) = scatter([entry("x", 5.0, human=1.0), entry("unjudged", 2.0)]).dots

    assert (dot.x, dot.y) == (1.0, 5.0)


def test_a_thumbnail_keeps_the_shape_and_carries_no_metadata() -> None:
    from io import BytesIO

    from PIL import Image

    image = Image.open(BytesIO(thumbnail(PIXELS)))

    assert image.format == "JPEG"
    assert image.size == (224, 134)
    assert not image.getexif()
