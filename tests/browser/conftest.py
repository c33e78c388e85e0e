"""The real page in Chromium, on the real desk: embedded log, index, signed links, sessions; nothing stands in."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from schemas import Decision, FileReference, ReviewItem, Route, Scores, ShadowRoute, Source, Verdict
from worker.cache.client import connect_embedded
from worker.demo.sample import SAMPLE_IMAGES
from worker.intake.log import Output
from worker.review.desk import open_desk
from worker.review.http.accounts import Accounts
from worker.review.http.opening import OpenDoor, open_door
from worker.review.http.roles import Role
from worker.settings import FileSettings, ReviewSettings, Settings, WebSettings
from worker.wiring import open_embedded_topics

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PASSWORD = "correct horse battery"
PATIENCE_MS = 15_000
DIGEST = "sha256:" + "0" * 64


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no chromium on the PATH; ops/dev/prerequisites.sh names what to install")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class RunningDesk:
    """A desk that is served, with its people and its topics at hand."""

    folder: Path
    settings: Settings
    door: OpenDoor
    stop: ExitStack
    redis: object
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        return self.door.address

    def add_person(self, name: str, role: Role = Role.REVIEWER) -> None:
        with closing(Accounts(self.folder / "people.sqlite", time.time)) as accounts:
            assert accounts.accept(accounts.invite(role, "test"), name, PASSWORD) is not None

    def add_items(self, count: int, *, queue: str = "quality", image: Path | None = None) -> list[str]:
        """Publishes review items, as the worker does, and waits until the desk knows them."""
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
                    scores=Scores(
                        quality=1.5 + number % 10 / 10, anchors=(0.5, 0.3, 0.1, 0.06, 0.04), coarse_share=0.4
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


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., RunningDesk]]:
    """Starts a desk; keyword arguments are settings of the review."""
    with ExitStack() as stack:

        def make(port: int = 0, shadow_policies: Mapping[str, Path] | None = None, **review: object) -> RunningDesk:
            settings = Settings(
                shadow_policies=dict(shadow_policies or {}),
                files=FileSettings(roots=(SAMPLE_IMAGES, tmp_path)),
                review=ReviewSettings(**({"audit_share": 0.0} | review)),  # type: ignore[arg-type]
                web=WebSettings(port=port),
            )
            stop = stack.enter_context(ExitStack())
            client = connect_embedded()
            stop.callback(client.close)
            open_embedded_topics(settings, tmp_path).close()
            desk = stop.enter_context(closing(open_desk(settings, tmp_path, client)))
            door = stop.enter_context(closing(open_door(settings, tmp_path, desk, client, tmp_path)))
            return RunningDesk(tmp_path, settings, door, stop, client)

        yield make


@pytest.fixture
def desk(make_desk: Callable[..., RunningDesk]) -> RunningDesk:
    return make_desk()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """A page in a profile of its own. What it says on its console is an error of the test, but for refused requests."""
    with ExitStack() as stack:
        complaints: list[str] = []

        def make(**options: object) -> Page:
            context = chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))  # type: ignore[arg-type]
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    complaints.append(message.text)
                    if message.type == "error" and "Failed to load resource" not in message.text
                    else None
                ),
            )
            return page

        yield make
        assert complaints == []


@pytest.fixture
def sign_in(desk: RunningDesk, open_page: Callable[..., Page]) -> Callable[..., Page]:
    """A page on the desk, signed in as a new person of this name and role."""

    def enter(name: str = "ana", role: Role = Role.REVIEWER, to: RunningDesk | None = None) -> Page:
        there = to or desk
        there.add_person(name, role)
        page = open_page()
        page.goto(there.address)
        enter_password(page, name)
        page.wait_for_selector("#bar:not([hidden])")
        return page

    return enter


def enter_password(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def shown_prompt(page: Page) -> str:
    return page.locator(".prompt").inner_text()
