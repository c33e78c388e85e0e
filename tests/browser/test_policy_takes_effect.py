"""Saved on the page, a policy judges the next event: no restart, whatever keeps log and policy."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).parent))

from running_desk import PASSWORD, RunningDesk, enter_password

from schemas import FileReference, ImageEvent, Verdict
from worker.cli.options import Place
from worker.cli.stream import open_stream
from worker.policy.loading import DEFAULT
from worker.review.http.roles import Role
from worker.review.http.serving import open_and_serve_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import (
    FileSettings,
    KafkaSettings,
    RedisSettings,
    ReviewSettings,
    S3Settings,
    Settings,
    TopicSettings,
    WebSettings,
)
from worker.wiring import Worker, build_embedded_worker, build_worker

PATIENCE = 120.0
SAMPLE = SAMPLE_IMAGES / "midjourney_normal_044.jpg"


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(worker.run, stop)
        try:
            yield
        finally:
            stop.set()
            ended.result(60)


class Events:
    """Sends events, each of the same image, and tells their verdicts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._numbers = itertools.count()

    def verdict(self) -> Verdict:
        """That of one more event."""
        name = f"event-{next(self._numbers)}"
        event = ImageEvent(id=name, occurred_at=datetime.now(UTC), image=FileReference(path=str(SAMPLE)))
        topic = self._place.settings.kafka.topics.verdicts
        with closing(open_stream(self._place)) as stream:
            stream.publish(name.encode(), event.model_dump_json(by_alias=True).encode())
            stream.flush()
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                for record in stream.read(topic, from_beginning=True, follow=False):
                    verdict = Verdict.model_validate_json(record.value or b"")
                    if verdict.event_id == name:
                        return verdict
                time.sleep(0.1)
        raise AssertionError(f"no verdict on {name}")

    def verdict_under_another(self, policy: str) -> Verdict:
        """That of the first event that is judged by another policy."""
        deadline = time.monotonic() + PATIENCE
        while (verdict := self.verdict()).policy == policy:
            assert time.monotonic() < deadline, "the saved policy did not come into force"
        return verdict


def save_a_policy_that_reviews_all(page: Page, address: str) -> None:
    page.goto(f"{address}/#/policy")
    page.get_by_role("slider", name="borderline").fill("5")
    expect(page.get_by_role("button", name="Save …")).to_be_enabled()
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: workers apply it within seconds")).to_be_visible()


def check(events: Events, page: Page, address: str) -> None:
    before = events.verdict()
    assert before.route.action == "pass"
    save_a_policy_that_reviews_all(page, address)
    after = events.verdict_under_another(before.policy)
    assert (after.route.action, after.route.queue, after.route.rule) == ("review", "quality", "borderline")
    assert after.verdict_id != before.verdict_id


def test_embedded_the_next_event_is_judged_by_what_was_saved(desk: RunningDesk, sign_in: Callable[..., Page]) -> None:
    with running(build_embedded_worker(desk.settings, desk.folder)):
        check(Events(Place(desk.settings, desk.folder)), sign_in("lea", Role.LEAD), desk.address)


def test_on_kafka_with_the_policy_in_s3_the_next_event_is_judged_by_what_was_saved(
    kafka_server: Any,
    redis_server: Any,
    s3_server: Any,
    bucket: str,
    new_topic: Callable[..., str],
    unique_name: str,
    tmp_path: Path,
    open_page: Callable[..., Page],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    settings = Settings(
        policy=f"s3://{bucket}/policy.yaml",
        kafka=KafkaSettings(
            bootstrap_servers=kafka_server.bootstrap_servers,
            group_id=unique_name,
            topics=TopicSettings(**{name: new_topic(partitions=2) for name in TopicSettings.model_fields}),
        ),
        redis=RedisSettings(url=redis_server.url),
        s3=S3Settings(endpoint_url=s3_server.endpoint, region=s3_server.region, addressing_style="path"),
        files=FileSettings(roots=(SAMPLE_IMAGES,)),
        review=ReviewSettings(audit_share=0.0),
        web=WebSettings(port=0),
    )
    s3_server.client().put_object(Bucket=bucket, Key="policy.yaml", Body=DEFAULT.read_bytes())
    try:
        with open_and_serve_desk(settings, None, tmp_path) as served, running(build_worker(settings)):
            page = open_page()
            page.goto(str(served.first_link))
            enter_password(page, "ada", PASSWORD)
            expect(page.get_by_role("link", name="Policy")).to_be_visible()
            check(Events(Place(settings, None)), page, served.address)
    finally:
        s3_server.client().delete_object(Bucket=bucket, Key="policy.yaml")
