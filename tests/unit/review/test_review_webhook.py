"""Decisions and verdicts on their way to somebody else's server, which is a real one on loopback."""

import hashlib
import hmac
import json
import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from schemas import Decision, Verdict
from tests.unit.review.review_bench import ReviewBench, review_item, verdict
from worker.intake.log import Output
from worker.review.index import keys
from worker.review.undelivered import Undelivered, UndeliveredMessage
from worker.review.webhook import NotDelivered, Refused, Webhook, signature
from worker.review.webhook_delivery import WebhookDelivery, delivery_counter
from worker.review.webhook_feed import MOST_VERDICTS, open_feed
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
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def outcomes(self) -> list[str]:
        return [json.loads(body)["outcome"] for _, body in self.calls]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


def hook_settings(url: str, **more: Any) -> WebhookSettings:
    return WebhookSettings(url=url, secret=SECRET, **{"allowed_hosts": ("127.0.0.1",), "max_attempts": 3, **more})


def webhook(url: str, **more: Any) -> Webhook:
    return Webhook("shop", hook_settings(url, **more))


class Post:
    """A delivery at a bench, stepped by hand."""

    def __init__(self, bench: ReviewBench, settings: WebhookSettings) -> None:
        self.bench = bench
        self.settings = settings
        self.stop = threading.Event()
        self.counter = delivery_counter()
        self.undelivered = Undelivered(bench.redis, "shop")
        self.courier = self.new()

    def new(self) -> WebhookDelivery:
        bench = self.bench
        return WebhookDelivery(
            "shop",
            self.settings,
            open_feed(bench.settings, self.settings),
            bench.topics,
            bench.redis,
            Webhook("shop", self.settings),
            bench.clock,
            counter=self.counter,
            rng=random.Random(1),
            clock=lambda: bench.clock().timestamp(),
        )

    def counted(self, outcome: str) -> float:
        return float(self.counter.labels("shop", outcome)._value.get())

    def later(self, seconds: float = 11) -> None:
        self.bench.sleep(seconds)
        self.courier.step(self.stop)


@pytest.fixture
def post(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.setattr("worker.review.webhook_delivery.PAUSE_SECONDS", 0.001)
    return Post(ReviewBench(), hook_settings(receiver.url))


@pytest.fixture
def verdicts_post(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.setattr("worker.review.webhook_delivery.PAUSE_SECONDS", 0.001)
    return Post(ReviewBench(), hook_settings(receiver.url, sends="verdicts"))


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
    assert headers["Sluice-Webhook"] == "shop"
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
def test_what_the_receiver_will_not_take_is_listed_and_the_next_goes_on(
    post: Post, receiver: Receiver, statuses: list[int]
) -> None:
    decide(post.bench, "a")
    post.courier.step(post.stop)
    receiver.statuses = list(statuses)
    post.later()
    decide(post.bench, "b", "approve")
    post.later()
    assert receiver.outcomes() == ["reject"] * len(statuses) + ["approve"]
    (left,) = post.undelivered.newest(10)
    assert (left.reason, left.attempts) == (f"the receiver answered {statuses[-1]}", len(statuses))
    assert post.counted("given_up" if len(statuses) == 3 else "refused") == 1
    assert post.counted("delivered") == 1


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
    post.bench.redis.delete(keys.delivered("shop"))
    post.courier = post.new()
    post.later()
    assert receiver.outcomes() == ["reject", "approve", "approve"]


def test_private_addresses_are_refused_unless_listed(receiver: Receiver) -> None:
    with pytest.raises(Refused, match=r"no public address.*review\.webhooks\.shop\.allowed_hosts"):
        webhook(receiver.url, allowed_hosts=()).post("id", b"{}", 0)
    assert receiver.calls == []
    with pytest.raises(Refused):
        webhook("http://169.254.169.254/latest", allowed_hosts=()).post("id", b"{}", 0)


def test_a_receiver_that_is_not_there_may_come_back() -> None:
    with pytest.raises(NotDelivered):
        webhook("http://127.0.0.1:1/").post("id", b"{}", 0)


def test_what_was_not_delivered_is_sent_again_when_somebody_asks(post: Post, receiver: Receiver) -> None:
    receiver.statuses = [410]
    decide(post.bench, "a")
    post.later()
    (left,) = post.undelivered.newest(10)
    post.later()
    assert receiver.outcomes() == ["reject"], "not before"

    receiver.statuses = [500]
    assert post.undelivered.want(["0" * 64]) == 0
    assert post.undelivered.want([left.id]) == 1
    post.later()
    (again,) = post.undelivered.newest(10)
    assert (again.reason, again.attempts) == ("the receiver answered 500", 2)
    post.later()
    assert len(receiver.calls) == 2, "each time somebody asks it is tried once"

    assert post.undelivered.want(None) == 1
    post.later()
    assert receiver.outcomes() == ["reject"] * 3
    assert post.undelivered.count() == 0
    ids = {headers["Sluice-Delivery"] for headers, _ in receiver.calls}
    assert ids == {left.id}, "the receiver can drop repeats"


def test_a_message_whose_record_is_kept_no_more_stays_listed_and_says_so(post: Post) -> None:
    lost = UndeliveredMessage(
        id="f" * 64,
        records=((post.bench.settings.kafka.topics.decisions, 0, 999),),
        reason="x",
        attempts=1,
        failed_at=post.bench.now,
    )
    post.undelivered.add(lost)
    post.undelivered.want(None)
    post.later()
    (left,) = post.undelivered.newest(10)
    assert "kept no more" in left.reason
    assert post.undelivered.wanted(10) == []


def test_only_the_newest_undelivered_messages_are_kept(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.review.undelivered.MOST", 3)
    for number in range(5):
        at = post.bench.now + timedelta(minutes=number)
        post.undelivered.add(UndeliveredMessage(id=str(number), records=(), reason="x", attempts=1, failed_at=at))
    assert [each.id for each in post.undelivered.newest(10)] == ["4", "3", "2"]
    much_later = post.bench.now + timedelta(days=31)
    post.undelivered.add(UndeliveredMessage(id="5", records=(), reason="x", attempts=1, failed_at=much_later))
    assert [each.id for each in post.undelivered.newest(10)] == ["5"]


def publish(bench: ReviewBench, *verdicts: Verdict) -> None:
    topic = bench.settings.kafka.topics.verdicts
    bench.topics.append([Output(topic, each.model_dump_json().encode(), each.event_id.encode()) for each in verdicts])


def test_verdicts_that_ask_for_something_are_sent_together_and_those_that_passed_are_not(
    verdicts_post: Post, receiver: Receiver
) -> None:
    publish(verdicts_post.bench, *[verdict(f"e{i}", "reject" if i % 2 else "pass") for i in range(10)])
    verdicts_post.later()
    ((_, body),) = receiver.calls
    assert {each["event_id"] for each in json.loads(body)["verdicts"]} == {f"e{i}" for i in range(1, 10, 2)}
    verdicts_post.courier = verdicts_post.new()
    verdicts_post.later()
    assert len(receiver.calls) == 1, "what passed is not read again either"


def test_many_verdicts_come_in_messages_of_a_bounded_size_each_once(verdicts_post: Post, receiver: Receiver) -> None:
    publish(verdicts_post.bench, *[verdict(f"e{i}", "review") for i in range(250)])
    receiver.statuses = [503]
    verdicts_post.later()
    sizes = [len(json.loads(body)["verdicts"]) for _, body in receiver.calls]
    assert sizes == [MOST_VERDICTS, MOST_VERDICTS, MOST_VERDICTS, 50], "the first one came twice"
    seen = [each["event_id"] for _, body in receiver.calls[1:] for each in json.loads(body)["verdicts"]]
    assert sorted(seen) == sorted(f"e{i}" for i in range(250))


def test_other_desks_see_how_far_behind_a_webhook_is(verdicts_post: Post) -> None:
    publish(verdicts_post.bench, *[verdict(f"e{i}", "review") for i in range(7)])
    verdicts_post.later(60)
    assert verdicts_post.bench.redis.get(keys.webhook_behind("shop")) == b"0"
