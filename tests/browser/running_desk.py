"""A desk that is served for the page's tests, and what one does on its pages again and again."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import redis
from playwright.sync_api import Page, expect

from schemas import Decision, FileReference, Provenance, ReviewItem, Route, Scores, ShadowRoute, Source, Verdict
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.review.http.accounts import Accounts
from worker.review.http.roles import Role
from worker.review.http.serving import ServedDesk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import Settings

PASSWORD = "correct horse battery"
PATIENCE_MS = 30_000
DIGEST = "sha256:" + "0" * 64


@dataclass
class RunningDesk:
    """A desk that is served, with its people and its topics at hand."""

    folder: Path
    settings: Settings
    served: ServedDesk
    stop: ExitStack
    redis: redis.Redis
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        return self.served.address

    def add_person(self, name: str, role: Role = Role.REVIEWER) -> None:
        with closing(Accounts(self.folder / "people.sqlite", time.time)) as accounts:
            assert accounts.accept(accounts.invite(role, "test"), name, PASSWORD) is not None

    def add_items(
        self,
        count: int,
        *,
        queue: str = "quality",
        image: Path | None = None,
        provenance: Provenance | None = None,
        worst_of: tuple[int, int] | None = None,
    ) -> list[str]:
        """Publishes review items, as the worker does, and waits until the desk knows them. `worst_of`: of an animation
        the worst frame, from 0, and how many it has."""
        samples = sorted(SAMPLE_IMAGES.glob("*.jpg"))
        items = []
        for number in itertools.islice(self.numbers, count):
            item_id = f"item-{number:03d}"
            sample = image or samples[number % len(samples)]
            items.append(
                ReviewItem(
                    item_id=item_id,
                    verdict_id=item_id,
                    event_id=f"event-{number}",
                    tenant="acme",
                    queue=queue,
                    priority=60,
                    created_at=datetime.now(UTC),
                    image=FileReference(path=str(sample)),
                    content_hash=None,
                    prompt=f"a fox in the snow, number {number}",
                    generator="sd-1.5",
                    provenance=provenance,
                    scores=Scores(
                        quality=1.5 + number % 10 / 10,
                        anchors=(0.5, 0.3, 0.1, 0.06, 0.04),
                        coarse_share=0.4,
                        worst_frame=worst_of[0] if worst_of else None,
                        frames=worst_of[1] if worst_of else 1,
                    ),
                    labels=("poor",),
                    rule="poor",
                    model=DIGEST,
                    policy=DIGEST,
                    source=Source(topic="images.in", partition=0, offset=number),
                )
            )
        self._append(self.settings.kafka.topics.review, [(item.event_id, item.model_dump_json()) for item in items])
        return [item.item_id for item in items]

    def add_verdicts(self, qualities: list[float], shadow: tuple[str, set[float]] | None = None) -> None:
        """Publishes verdicts that passed, for replays. A `shadow` has a name, and qualities it would have reviewed."""
        review = Route(action="review", queue="quality", priority=20, rule="borderline")
        sample = sorted(SAMPLE_IMAGES.glob("*.jpg"))[0]
        verdicts = [
            Verdict(
                verdict_id=f"v{number}",
                event_id=f"past-{number}",
                tenant="acme",
                occurred_at=datetime.now(UTC),
                judged_at=datetime.now(UTC),
                image=FileReference(path=str(sample)),
                content_hash=None,
                status="scored",
                scores=Scores(quality=quality),
                route=Route(action="pass", rule="default"),
                shadow=()
                if shadow is None
                else (ShadowRoute(name=shadow[0], policy=DIGEST, route=review if quality in shadow[1] else None),),
                model=DIGEST,
                policy=DIGEST,
                source=Source(topic="images.in", partition=0, offset=number),
            )
            for number, quality in enumerate(qualities)
        ]
        self._append(self.settings.kafka.topics.verdicts, [(v.event_id, v.model_dump_json()) for v in verdicts])

    def add_events(self, count: int) -> None:
        """Publishes so many events, which no worker judges."""
        self._append(self.settings.kafka.topics.images, [(f"e{number}", "{}") for number in range(count)])

    def decisions(self) -> list[Decision]:
        """What the log has, oldest first."""
        topic = self.settings.kafka.topics.decisions
        with closing(open_embedded_topics(self.settings, self.folder)) as topics:
            positions = dict.fromkeys(topics.ends(topic), 0)
            found = []
            while records := topics.read(positions):
                for record in records:
                    positions[record.partition] = record.offset + 1
                    found.append(Decision.model_validate_json(record.value or b""))
        return sorted(found, key=lambda decision: decision.decided_at)

    def wait_for_decisions(self, count: int) -> list[Decision]:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while len(found := self.decisions()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(found) == count, f"{len(found)} decisions, not {count}"
        return found

    def _append(self, topic: str, records: list[tuple[str, str]]) -> None:
        with closing(open_embedded_topics(self.settings, self.folder)) as topics:
            topics.append([Output(topic, value.encode(), key.encode()) for key, value in records])


def enter_password(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def shown_prompt(page: Page) -> str:
    """The prompt of the image that is shown; before an image is there it cannot be decided about."""
    page.wait_for_selector(".frame img, .frame .missing")
    return page.locator(".prompt").inner_text()


def ready(page: Page) -> str:
    """The prompt of the image that is shown, once the image is loaded and can be decided about."""
    expect(page.locator(".frame:not(.loading) img")).to_be_visible()
    return shown_prompt(page)
