"""Decisions on their way to somebody else's server, which is a real one on loopback."""

import hashlib
import hmac
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from schemas import Decision
from tests.unit.review.review_bench import ReviewBench, review_item
from worker.review.index import keys
from worker.review.webhook import NotDelivered, Refused, Webhook, signature
from worker.review.webhook_delivery import WebhookDelivery
from worker.settings import WebhookSettings

SECRET = "a secret of enough length"


class Receiver:
    """Answers with the statuses it is told, then 200; keeps what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.calls: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?of=sluice"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def outcomes(self) -> list[str]:
        return [json.loads(body)["outcome"] for _, body in self.calls]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


def webhook(url: str, **more: Any) -> Webhook:
    return Webhook(WebhookSettings(url=url, secret=SECRET, **{"allowed_hosts": ("127.0.0.1",), **more}))


class Post:
    """A courier at a bench, stepped by hand."""

    def __init__(self, bench: ReviewBench, hook: Webhook) -> None:
        self.bench = bench
        self.hook = hook
        self.stop = threading.Event()
        self.courier = self.new()

    def new(self) -> WebhookDelivery:
        bench = self.bench
        return WebhookDelivery(
            bench.settings, bench.topics, bench.redis, self.hook, bench.clock, max_attempts=3, rng=random.Random(1)
        )

    def later(self, seconds: float = 11) -> None:
        self.bench.sleep(seconds)
        self.courier.step(self.stop)


@pytest.fixture
def post(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.setattr("worker.review.webhook_delivery.PAUSE_SECONDS", 0.001)
    return Post(ReviewBench(), webhook(receiver.url))


def decide(bench: ReviewBench, item_id: str, outcome: str = "reject") -> None:
    bench.items(review_item(item_id))
    bench.decide(bench.one("ann"), outcome, f"d-{item_id}")


def test_a_receiver_can_check_who_sent_a_decision_and_when(post: Post, receiver: Receiver) -> None:
    decide(post.bench, "a")
    post.later()
    ((headers, body),) = receiver.calls
    assert Decision.model_validate_json(body).decision_id == "d-a"
    signed = f"{headers['Sluice-Timestamp']}.".encode() + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["Sluice-Signature"] == f"v1={expected}"
    assert int(headers["Sluice-Timestamp"]) == int(post.bench.now.timestamp())


def test_a_signature_depends_on_secret_time_and_body() -> None:
    signatures = {signature(s, t, b) for s in (b"1", b"2") for t in (1, 11) for b in (b"1.x", b"x")}
    assert len(signatures) == 8


def test_a_decision_is_sent_when_it_can_no_longer_be_undone_and_one_undone_is_not_sent(
    post: Post, receiver: Receiver
) -> None:
    decide(post.bench, "a", "reject")
    post.later(5)
    assert receiver.calls == []
    back = post.bench.desk.undo("d-a", "ann")
    post.bench.decide(back, "approve", "d-2")
    post.later()
    assert receiver.outcomes() == ["approve"]


def test_a_server_in_trouble_is_asked_again_and_order_is_kept(post: Post, receiver: Receiver) -> None:
    receiver.statuses = [503, 429]
    decide(post.bench, "a", "reject")
    decide(post.bench, "b", "approve")
    post.later()
    assert receiver.outcomes() in (
        ["reject", "reject", "reject", "approve"],
        ["approve", "approve", "approve", "reject"],
    )


@pytest.mark.parametrize("statuses", [[400], [302], [500, 500, 500]])
def test_what_the_receiver_will_not_take_is_left_and_the_next_goes_on(
    post: Post, receiver: Receiver, statuses: list[int]
) -> None:
    decide(post.bench, "a")
    post.courier.step(post.stop)
    receiver.statuses = list(statuses)
    post.later()
    decide(post.bench, "b", "approve")
    post.later()
    assert receiver.outcomes() == ["reject"] * len(statuses) + ["approve"]


def test_another_courier_goes_on_where_one_ended(post: Post, receiver: Receiver) -> None:
    decide(post.bench, "a")
    post.later()
    decide(post.bench, "b", "approve")
    post.courier = post.new()
    post.later()
    assert receiver.outcomes() == ["reject", "approve"]


def test_after_a_lost_redis_only_recent_decisions_come_again(post: Post, receiver: Receiver) -> None:
    decide(post.bench, "old")
    post.later()
    post.bench.sleep(2 * 3600)
    decide(post.bench, "new", "approve")
    post.later()
    post.bench.redis.delete(keys.DELIVERED)
    post.courier = post.new()
    post.later()
    assert receiver.outcomes() == ["reject", "approve", "approve"]


def test_private_addresses_are_refused_unless_listed(receiver: Receiver) -> None:
    bench = ReviewBench()
    decide(bench, "a")
    (decision,) = bench.decisions()
    with pytest.raises(Refused, match=r"no public address.*review\.webhook\.allowed_hosts"):
        webhook(receiver.url, allowed_hosts=()).post(decision, 0)
    assert receiver.calls == []
    with pytest.raises(Refused):
        webhook("http://169.254.169.254/latest", allowed_hosts=()).post(decision, 0)


def test_a_receiver_that_is_not_there_may_come_back(receiver: Receiver) -> None:
    bench = ReviewBench()
    decide(bench, "a")
    with pytest.raises(NotDelivered):
        webhook("http://127.0.0.1:1/").post(bench.decisions()[0], 0)
