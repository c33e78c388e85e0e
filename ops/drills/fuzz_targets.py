"""What is fuzzed, and what each input must end in. A `Finding` is an input that ended in something else."""

import json
import math
import os
import random
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from ops.drills import fuzz_inputs as inputs
from schemas import DeadLetter, ImageEvent, Provenance, S3Reference, Scores, Verdict
from worker.cache.client import connect_server
from worker.cache.codec import encode_features, encode_scores, seal, unseal
from worker.cache.score_cache import ScoreCache
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Partition, Record
from worker.intake.parse import MalformedRecord, parse
from worker.intake.sqlite_topics import SqliteTopics
from worker.outbox import ROOM_FOR_OURS
from worker.policy.errors import PolicyError
from worker.policy.loading import parse_policy
from worker.settings import (
    HttpSettings,
    ImageSettings,
    IntakeSettings,
    RedisSettings,
    S3Settings,
    Settings,
    SettingsError,
    load_settings,
)
from worker.telemetry.metrics import Metrics
from worker.wiring import build_embedded_worker

T = TypeVar("T", Verdict, DeadLetter)
SLOW_SECONDS: Final = 2.0
"""Processor seconds that one input may take."""
REDIS_SLOW_SECONDS: Final = 10.0
"""hiredis makes the list that an answer announces, before it has come: a billion elements take it four seconds."""
HANG_SECONDS: Final = 60.0
"""Without any progress for so long, the worker hangs."""
SECRET: Final = "secret-of-the-fuzz"


@dataclass(slots=True)
class FuzzOutcome:
    """How many inputs ended in what, and those that ended wrongly: a few words and the input."""

    ended: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, str]] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slow_seconds: float = SLOW_SECONDS

    def find(self, what: str, value: object) -> None:
        self.findings.append((what, repr(value)[:4000]))

    @contextmanager
    def timed(self, value: object) -> Iterator[None]:
        started = time.process_time()
        yield
        seconds = time.process_time() - started
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if seconds > self.slow_seconds:
            self.find(f"took {seconds:.1f} s of processor time", value)


def fuzz_records(kind: str, count: int, rng: random.Random, folder: Path) -> FuzzOutcome:
    """Gives the records to a whole embedded worker: each must end in a verdict for each of its events, or in a verdict
    and a dead letter, with our own message.
    """
    outcome = FuzzOutcome()
    with _store_without_objects() as endpoint:
        settings = _worker_settings(endpoint)
        names = settings.kafka.topics
        with closing(open_embedded_topics(settings, folder)) as topics:
            records: dict[tuple[int, int], Record] = {}
            for start in range(0, count, 500):
                made = [inputs.record(kind, number, rng) for number in range(start, min(count, start + 500))]
                outputs = [
                    Output(names.images, value, str(start + index).encode(), headers)  # type: ignore[arg-type]
                    for index, (value, headers) in enumerate(made)
                ]
                for (partition, offset), output in zip(topics.append(outputs), outputs, strict=True):
                    record = Record(partition, offset, output.value, output.key, output.headers)
                    records[partition.number, offset] = record
            _run_worker(settings, folder, topics, outcome)
            verdicts = _by_source(topics, names.verdicts, Verdict, outcome)
            letters = _by_source(topics, names.dead, DeadLetter, outcome)
    for place, record in records.items():
        _check_record(record, verdicts.get(place, {}), letters.get(place, {}), settings, outcome)
    return outcome


def fuzz_policies(count: int, rng: random.Random) -> FuzzOutcome:
    """A policy is taken and routes every event, or a PolicyError says why not."""
    outcome = FuzzOutcome()
    event = ImageEvent.model_validate_json(json.dumps(inputs.EVENT))
    plain = event.model_copy(update={"prompt": None, "attributes": {}, "tenant": "umbrella"})
    for _ in range(count):
        text = inputs.broken_yaml(inputs.POLICY, rng)
        with outcome.timed(text):
            try:
                policy = parse_policy(text, "policy.yaml")
            except PolicyError as error:
                outcome.ended["named error" if str(error) else "error without words"] += 1
                continue
            except BaseException as error:  # noqa: BLE001
                outcome.find(f"{type(error).__name__}: {error}", text)
                continue
            for each in (event, plain):
                try:
                    policy.route(each, Scores(quality=1.5))
                    outcome.ended["route"] += 1
                except PolicyError:
                    outcome.ended["named error while routing"] += 1
                except BaseException as error:  # noqa: BLE001
                    outcome.find(f"while routing, {type(error).__name__}: {error}", text)
    return outcome


def fuzz_settings(count: int, rng: random.Random, folder: Path) -> FuzzOutcome:
    """Settings are taken, or a SettingsError says why not; no message repeats a secret."""
    outcome = FuzzOutcome()
    path = folder / "sluice.yaml"
    for _ in range(count):
        text = inputs.broken_yaml(inputs.SETTINGS, rng)
        path.write_bytes(text)
        variable = inputs.broken_json({"group_id": "x"}, rng).decode("latin-1")
        env = {"SLUICE_KAFKA": variable} if rng.random() < 0.3 else {}
        with outcome.timed(text):
            try:
                load_settings(path, env)
                outcome.ended["settings"] += 1
            except SettingsError as error:
                outcome.ended["named error"] += 1
                if SECRET in str(error):
                    outcome.find(f"the error repeats a secret: {error}", text)
            except BaseException as error:  # noqa: BLE001
                outcome.find(f"{type(error).__name__}: {error}", (text, env))
    return outcome


def fuzz_redis(count: int, rng: random.Random) -> FuzzOutcome:
    """Whatever Redis answers is a hit with finite numbers, or a miss; the cache never raises and never hangs."""
    outcome = FuzzOutcome(slow_seconds=REDIS_SLOW_SECONDS)
    hashed = f"sha256:{'a' * 64}"
    scores, features = Scores(quality=2.5, anchors=(0.1, 0.2, 0.4, 0.2, 0.1)), {"coarse": b"\x00<" * 512}
    valid = (
        encode_scores(scores, Provenance(found=True, generator="comfyui", seed="42")),
        encode_features(features),
        seal(hashed.encode()),
    )
    clock = iter(range(0, 10**12, 1000)).__next__  # each question comes long after an outage
    with _answering_server() as server:
        client = connect_server(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{server.port}/0")))
        cache = ScoreCache(
            client, model_digest=hashed, ttl_seconds=60, reads_prompts=True, metrics=Metrics(CollectorRegistry()),
            clock=lambda: float(clock()),
        )  # fmt: skip
        key, reference = cache.key(hashed, "a fox"), S3Reference(bucket="b", key="k", etag="e")
        questions: tuple[Callable[[], list[Any]], ...] = (
            lambda: cache.scores([key]), lambda: cache.features([key]), lambda: cache.content_hashes([reference]),
        )  # fmt: skip
        for _ in range(count):
            which = rng.randrange(3)
            value = valid[which]
            if rng.random() < 0.6:
                value = inputs.broken_bytes(value, rng, often=1.0)
                if rng.random() < 0.5:  # as if another program had written it, with a checksum that is right
                    value = seal(inputs.broken_bytes(unseal(valid[which]), rng, often=1.0))
            answer = b"*1\r\n$%d\r\n%b\r\n" % (len(value), value)
            server.answer = inputs.broken_bytes(answer, rng, often=0.5)
            with outcome.timed(server.answer):
                try:
                    (found,) = questions[which]()
                except BaseException as error:  # noqa: BLE001
                    outcome.find(f"{type(error).__name__}: {error}", server.answer)
                    continue
            outcome.ended["miss" if found is None else "hit"] += 1
            if isinstance(found, Scores) and not all(map(math.isfinite, (found.quality, *(found.anchors or ())))):
                outcome.find("a score that is not finite", server.answer)
            client.connection_pool.disconnect()  # what is left of a broken answer belongs to no other question
        client.close()
    return outcome


def _worker_settings(endpoint: str) -> Settings:
    return Settings(
        s3=S3Settings(endpoint_url=endpoint, region="us-east-1", addressing_style="path"),
        http=HttpSettings(allowed_hosts=("nothing-is-allowed.invalid",)),
        images=ImageSettings(fetch_timeout_seconds=2.0),
        redis=RedisSettings(),
        intake=IntakeSettings(
            max_attempts=2, retry_base_seconds=0.01, retry_max_seconds=0.02, retry_deadline_seconds=1.0,
            outage_seconds=2.0, drain_seconds=5.0,
        ),
    )  # fmt: skip


def _run_worker(settings: Settings, folder: Path, topics: SqliteTopics, outcome: FuzzOutcome) -> None:
    """Until everything is committed, or nothing moves any more."""
    worker = build_embedded_worker(settings, folder)
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(stop)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    images, group = settings.kafka.topics.images, settings.kafka.group_id
    ends = topics.ends(images)
    moved, before = time.monotonic(), -1
    while thread.is_alive():
        done = sum(topics.committed(group, images).values())
        if done >= sum(ends.values()):
            break
        if done != before:
            moved, before = time.monotonic(), done
        if time.monotonic() - moved > HANG_SECONDS:
            stuck = topics.read(topics.committed(group, images), max_records=1)
            outcome.find(f"the worker hangs: {worker.problems()}", [record.value for record in stuck])
            break
        time.sleep(0.05)
    stop.set()
    thread.join(30)
    for failure in failures:
        outcome.find(f"the worker ended: {type(failure).__name__}: {failure}", "")


def _check_record(
    record: Record,
    verdicts: Mapping[int, list[Verdict]],
    letters: Mapping[int, list[DeadLetter]],
    settings: Settings,
    outcome: FuzzOutcome,
) -> None:
    with outcome.timed(record):
        try:
            events = len(parse(record, max_bytes=settings.kafka.max_message_bytes - ROOM_FOR_OURS).events)
        except MalformedRecord:
            events = -1
    wanted = range(abs(events))
    counts = {index: len(found) for index, found in verdicts.items()}
    if counts != dict.fromkeys(wanted, 1):
        outcome.find(f"{abs(events)} events, and verdicts {counts}", record)
    failed = {index for index, found in verdicts.items() if found[0].failure is not None}
    if failed != letters.keys() or any(len(found) != 1 for found in letters.values()):
        outcome.find(f"failed events {sorted(failed)}, and dead letters {sorted(letters)}", record)
    for found in verdicts.values():
        failure = found[0].failure
        if failure is not None and failure.reason == "internal_error":
            outcome.find(f"an internal error: {failure.message}", record)
        if failure is not None and found[0].route.action != "review":
            outcome.find("an event that failed was not sent to review", record)
        outcome.ended["verdict" if failure is None else f"dead letter: {failure.reason.value}"] += 1
    if not events:
        outcome.ended["ignored"] += 1


def _by_source(
    topics: SqliteTopics, topic: str, contract: type[T], outcome: FuzzOutcome
) -> dict[tuple[int, int], dict[int, list[T]]]:
    found: dict[tuple[int, int], dict[int, list[T]]] = {}
    positions: dict[Partition, int] = dict.fromkeys(topics.ends(topic), 0)
    while records := topics.read(positions):
        for record in records:
            positions[record.partition] = record.offset + 1
            try:
                value = contract.model_validate_json(record.value or b"")
            except ValueError as error:
                outcome.find(f"{topic} holds what its contract refuses: {error}", record.value)
                continue
            source = value.source
            found.setdefault((source.partition, source.offset), {}).setdefault(source.index, []).append(value)
    return found


@contextmanager
def _store_without_objects() -> Iterator[str]:
    """An S3 that has nothing."""

    class NotFound(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
            self.send_response(404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    os.environ |= {"AWS_ACCESS_KEY_ID": "fuzz", "AWS_SECRET_ACCESS_KEY": "fuzz"}  # boto3 would look for some elsewhere
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _AnsweringServer(socketserver.ThreadingTCPServer):
    """Takes the client's greeting, answers the question after it with `answer`, then closes."""

    allow_reuse_address = True
    daemon_threads = True
    answer = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answering(socketserver.BaseRequestHandler):
    server: _AnsweringServer

    def handle(self) -> None:
        try:
            while asked := self.request.recv(65536):
                if b"MGET" in asked:
                    self.request.sendall(self.server.answer)
                    self.request.shutdown(socket.SHUT_WR)
                else:
                    self.request.sendall(b"+OK\r\n" * asked.count(b"SETINFO"))
        except OSError:
            return


@contextmanager
def _answering_server() -> Iterator[_AnsweringServer]:
    server = _AnsweringServer()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
