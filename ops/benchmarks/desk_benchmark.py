"""How long reviewers wait: 50 of them at one decision a second each, by HTTP, on real Kafka and Redis.

    python -m ops.benchmarks.desk_benchmark [--short] [--out FOLDER] [--reviewers N] [--seconds N]

The desk is a process of its own, as `sluice up --desk` serves it. Each reviewer does what the page does: holds four
leases, looks at each image, listens to live events, asks for the queues, beats for its leases. Reviewers share the
machine with the desk, its broker and its Redis, so that what they wait includes their own part, which aiohttp keeps
small; the load average tells what else ran. A run in which an item was given to two people, or a decision was not in
the topic, is no result: it ends with an error.
"""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr
from rich.table import Table

from ops.benchmarks.results import Options, console, machine, option_parser
from ops.benchmarks.results import publish as publish_results
from ops.dev.servers import KafkaServer, RedisServer
from schemas import Decision, FileReference, ReviewItem, Scores, Source
from worker.charts import bar_chart
from worker.intake.topics import create_topics
from worker.review.http.accounts import PEOPLE_FILE, Accounts
from worker.review.http.roles import Role
from worker.review.http.serving import open_and_serve_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import FileSettings, KafkaSettings, RedisSettings, ReviewSettings, Settings, WebSettings

QUEUE = "quality"
AHEAD = 4
"""Leases that a page holds."""
BEAT_SECONDS = 20.0
QUEUES_SECONDS = 3.0
"""How often a page asks for the queues while things happen."""
READY_SECONDS = 120.0
GOAL_MS = 200.0
REVIEWERS = 50
SECONDS = 60


@dataclass
class Outcome:
    """What the reviewers saw. Latencies in milliseconds, by what was asked for."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    holders: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often each item was given to whom."""
    decided: dict[str, str] = field(default_factory=dict)
    """The reviewer whose decision on an item was acknowledged."""
    refused: list[str] = field(default_factory=list)
    late: int = 0
    """Decisions that came later than the pace asked for, because the desk had not answered."""

    def double_leases(self) -> list[str]:
        """Items that were given out twice, although no lease had run out and nothing was given back."""
        return [item for item, holders in self.holders.items() if holders.total() > 1]


class Reviewer:
    """Somebody at the desk."""

    def __init__(self, name: str, address: str, outcome: Outcome) -> None:
        """To be made where an event loop runs."""
        self.name = name
        self._outcome = outcome
        self._web = aiohttp.ClientSession(
            address,
            timeout=aiohttp.ClientTimeout(total=30),
            connector=aiohttp.TCPConnector(limit=6),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # the desk's address is a number
        )
        self._csrf = ""
        self._leases: list[dict[str, Any]] = []

    async def sign_up(self, token: str) -> None:
        async with self._web.get("/v1/sign-in") as answer:
            csrf = (await answer.json())["csrf"]
        body = {"token": token, "name": self.name, "password": uuid.uuid4().hex}
        headers = {"x-csrf-token": csrf}
        async with self._web.post("/v1/invitations/accept", json=body, headers=headers) as answer:
            answer.raise_for_status()
            self._csrf = (await answer.json())["csrf"]

    async def work(self, decisions: int, pace_seconds: float) -> None:
        """Decides so many items, one each `pace_seconds`, or fewer when there are no more."""
        listening = asyncio.create_task(self._listen())
        beating = asyncio.create_task(self._beat())
        watching = asyncio.create_task(self._watch())
        try:
            begun = time.monotonic()
            for number in range(decisions):
                ahead = begun + number * pace_seconds - time.monotonic()
                self._outcome.late += pace_seconds > 0 and ahead < 0
                await asyncio.sleep(max(0.0, ahead))
                await self._fill()
                if not self._leases:
                    return
                await self._decide(self._leases.pop(0))
        finally:
            for task in (listening, beating, watching):
                task.cancel()
            await asyncio.gather(listening, beating, watching, return_exceptions=True)
            await self._web.close()

    async def _fill(self) -> None:
        if len(self._leases) > AHEAD // 2:
            return
        answer = await self._timed("lease", "POST", f"/v1/queues/{QUEUE}/leases", {"count": AHEAD - len(self._leases)})
        for lease in await answer.json():
            self._outcome.holders[lease["item_id"]][self.name] += 1
            self._leases.append(lease)
            seen = await self._timed("image", "GET", lease["items"][0]["image"]["screen"])
            if seen.content_type != "image/jpeg":
                self._outcome.refused.append(f"image: {(await seen.text())[:200]}")

    async def _decide(self, lease: dict[str, Any]) -> None:
        body = {
            "decision_id": uuid.uuid4().hex,
            "item_id": lease["item_id"],
            "token": lease["token"],
            "outcome": "approve" if int(lease["token"]) % 2 else "reject",
            "seconds_spent": 1.0,
        }
        answer = await self._timed("decision", "POST", "/v1/decisions", body)
        if answer.ok:
            self._outcome.decided[lease["item_id"]] = self.name
        else:
            self._outcome.refused.append(f"decision: {(await answer.text())[:200]}")

    async def _timed(
        self, what: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> aiohttp.ClientResponse:
        begun = time.perf_counter()
        async with self._web.request(method, path, json=body, headers={"x-csrf-token": self._csrf}) as answer:
            await answer.read()
        self._outcome.latencies[what].append((time.perf_counter() - begun) * 1000)
        return answer

    async def _listen(self) -> None:
        async with self._web.get("/v1/events", timeout=aiohttp.ClientTimeout(total=None)) as stream:
            async for _ in stream.content.iter_any():
                pass

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(QUEUES_SECONDS)
            await self._timed("queues", "GET", "/v1/queues")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            held = [{"item_id": lease["item_id"], "token": lease["token"]} for lease in self._leases]
            if held:
                await self._timed("heartbeat", "POST", "/v1/leases/heartbeat", {"leases": held})


async def review(
    address: str, tokens: Sequence[str], decisions: int, pace_seconds: float, begun: Callable[[], None] = lambda: None
) -> Outcome:
    """Lets one reviewer for each invitation's token work at the same time; `begun` is called when all are there."""
    outcome = Outcome()
    reviewers = [Reviewer(f"reviewer-{number}", address, outcome) for number in range(len(tokens))]
    for reviewer, token in zip(reviewers, tokens, strict=True):
        await reviewer.sign_up(token)
    begun()

    async def begin(number: int, reviewer: Reviewer) -> None:
        await asyncio.sleep(pace_seconds * number / len(reviewers))  # nobody presses keys in step
        await reviewer.work(decisions, pace_seconds)

    await asyncio.gather(*(begin(number, reviewer) for number, reviewer in enumerate(reviewers)))
    return outcome


def item(number: int) -> ReviewItem:
    samples = sorted(SAMPLE_IMAGES.glob("*.jpg"))
    return ReviewItem(
        item_id=f"item-{number:05d}",
        verdict_id=f"item-{number:05d}",
        event_id=f"event-{number:05d}",
        tenant="acme",
        queue=QUEUE,
        priority=number % 101,
        created_at=datetime.now(UTC),
        image=FileReference(path=str(samples[number % len(samples)])),
        content_hash=None,
        prompt=f"a fox in the snow, number {number}",
        scores=Scores(quality=1.5, anchors=(0.5, 0.3, 0.1, 0.06, 0.04), coarse_share=0.4),
        rule="poor",
        model="sha256:" + "a" * 64,
        policy="sha256:" + "b" * 64,
        source=Source(topic="images.in", partition=0, offset=number),
    )


def publish(settings: Settings, count: int) -> None:
    with closing(KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)) as producer:
        for number in range(count):
            one = item(number)
            producer.send(settings.kafka.topics.review, key=one.event_id.encode(), value=one.model_dump_json().encode())
        producer.flush()


def decisions_in_topic(settings: Settings) -> list[Decision]:
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, isolation_level="read_committed")
    with closing(consumer):
        topic = settings.kafka.topics.decisions
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                found += [Decision.model_validate_json(record.value) for record in records]
        return found


def invitations(folder: Path, count: int) -> list[str]:
    """Tokens for so many people, at a desk that has an admin: without one it would call back all but the first's."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Accounts(folder / PEOPLE_FILE, time.time)) as accounts:
        accounts.accept(accounts.invite(Role.ADMIN, "benchmark"), "admin", uuid.uuid4().hex)
        return [accounts.invite(Role.REVIEWER, "benchmark") for _ in range(count)]


def wait_for_items(served: Any, count: int) -> None:
    """Until the index holds them all."""
    deadline = time.monotonic() + READY_SECONDS
    desk = served.app.state.context.desk
    while time.monotonic() < deadline:
        if sum(queue.open for queue in desk.queues()) >= count:
            return
        time.sleep(0.1)
    raise TimeoutError(f"the desk did not find {count} items in {READY_SECONDS:.0f} s")


def check(outcome: Outcome, recorded: Sequence[Decision]) -> None:
    """Raises AssertionError unless every item was one person's, and every acknowledged decision is in the topic."""
    assert outcome.refused == [], outcome.refused[:3]
    assert outcome.double_leases() == [], outcome.double_leases()[:3]
    votes = [(decision.item_id, decision.reviewer) for decision in recorded]
    assert len(set(votes)) == len(votes), "a decision is in the topic twice"
    assert dict(votes) == outcome.decided, "what was acknowledged and what is in the topic differ"


def _serve(settings: Settings, folder: Path, count: int, pipe: Connection) -> None:
    with open_and_serve_desk(settings, None, folder) as served:
        wait_for_items(served, count)
        pipe.send(served.address)
        pipe.recv()
        began = time.process_time()
        pipe.recv()
        pipe.send(time.process_time() - began)


def measure(reviewers: int, seconds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sluice-desk-bench-") as name:
        folder = Path(name)
        kafka, redis_server = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        try:
            kafka.start()
            redis_server.start()
            settings = Settings(
                kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
                redis=RedisSettings(url=SecretStr(redis_server.url)),
                files=FileSettings(roots=(SAMPLE_IMAGES,)),
                review=ReviewSettings(audit_share=0.0, duplicate_cosine=1.0),
                web=WebSettings(port=0),
            )
            create_topics(settings.kafka, partitions=4, replication_factor=1)
            count = reviewers * (seconds + 2 * AHEAD)
            publish(settings, count)
            tokens = invitations(folder / "desk", reviewers)
            ours, theirs = multiprocessing.Pipe()
            spawn = multiprocessing.get_context("spawn")
            process = spawn.Process(target=_serve, args=(settings, folder / "desk", count, theirs), daemon=True)
            process.start()
            if not ours.poll(READY_SECONDS + 60):
                raise TimeoutError("the desk did not start")
            address = ours.recv()
            started: list[tuple[float, float]] = []

            def begun() -> None:
                ours.send("begin")
                started.append((time.monotonic(), time.process_time()))

            outcome = asyncio.run(review(address, tokens, seconds, 1.0, begun))
            took, own_cpu = (
                now - then for now, then in zip((time.monotonic(), time.process_time()), *started, strict=True)
            )
            ours.send("end")
            desk_cpu = ours.recv()
            check(outcome, decisions_in_topic(settings))
            process.join(30)
        finally:
            kafka.stop()
            redis_server.stop()
    return {
        "measured_on": machine("kafka-python", "redis", "aiohttp"),
        "reviewers": reviewers,
        "seconds": seconds,
        "decisions": len(outcome.decided),
        "decisions_a_second": round(len(outcome.decided) / took, 1),
        "later_than_the_pace": outcome.late,
        "desk_cpu_ms_a_decision": round(1000 * desk_cpu / len(outcome.decided), 2),
        "reviewers_cpu_ms_a_decision": round(1000 * own_cpu / len(outcome.decided), 2),
        "load_average": round(os.getloadavg()[0], 1),
        "double_leases": len(outcome.double_leases()),
        "milliseconds": {what: _spread(values) for what, values in sorted(outcome.latencies.items())},
        "goal_p95_ms": GOAL_MS,
    }


def _spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {
        "count": len(values),
        **{f"p{part}": round(cuts[part - 1], 1) for part in (50, 95, 99)},
        "max": round(max(values), 1),
    }


def run(options: Options, reviewers: int, seconds: int) -> None:
    result = measure(reviewers, seconds)
    table = Table("request", "count", "p50", "p95", "p99", "max", title=f"{reviewers} reviewers, milliseconds")
    for what, spread in result["milliseconds"].items():
        table.add_row(what, *(str(spread[name]) for name in ("count", "p50", "p95", "p99", "max")))
    publish_results("desk", options, result, [table], plot(result))
    console.print(
        f"{result['decisions']} decisions, {result['decisions_a_second']} a second; no item was given twice; "
        f"the desk took {result['desk_cpu_ms_a_decision']} ms of a processor for each"
    )


def plot(result: Mapping[str, Any]) -> str:
    values = {
        f"{what}, {part}": spread[part] for what, spread in result["milliseconds"].items() for part in ("p50", "p95")
    }
    return bar_chart(f"{result['reviewers']} reviewers wait for the desk", "milliseconds", values)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--reviewers", type=int, metavar="N", help=f"absent: {REVIEWERS}")
    parser.add_argument("--seconds", type=int, metavar="N", help=f"absent: {SECONDS}")
    given = parser.parse_args()
    people, seconds = (4, 3) if given.short else (REVIEWERS, SECONDS)
    run(Options(given.short, given.out), given.reviewers or people, given.seconds or seconds)


if __name__ == "__main__":
    main()
