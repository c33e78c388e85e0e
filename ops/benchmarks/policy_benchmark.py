"""What an event costs before and after the model: parsing a record, routing by a policy. CPU microseconds each.

python ops/benchmarks/policy_benchmark.py
"""

import json
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from schemas import ImageEvent, Scores
from worker.intake.log import Partition, Record
from worker.intake.parse import parse
from worker.policy import load_policy

EVENT = {
    "schema": "sluice.image-event/1",
    "id": "event-1",
    "occurred_at": "2026-01-01T00:00:00Z",
    "tenant": "acme",
    "image": {"kind": "s3", "bucket": "images", "key": "2026/01/a.png", "etag": "d41d8cd98f00b204e9800998ecf8427e"},
    "prompt": "a cat on a mat, oil on canvas, " * 8,
    "generator": "sd",
    "attributes": {"nsfw": False, "plan": "free"},
}
NOTIFICATION = {
    "Records": [
        {
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-01-01T00:00:00Z",
            "s3": {"bucket": {"name": "images"}, "object": {"key": f"{number}.png", "eTag": "x", "sequencer": "1"}},
        }
        for number in range(10)
    ]
}
SCORES_ONLY = [f"scores.quality < {threshold}" for threshold in (1.2, 1.6, 2.0, 2.4)]
FIELDS = [
    "scores.quality < 1.2",
    'event.tenant == "other" && scores.quality < 3',
    'has(event.generator) && event.generator in ["xl", "mj"]',
    "has(scores.correspondence) && scores.correspondence < 2",
]
PROMPT = [*FIELDS[:3], 'has(event.prompt) && event.prompt.contains("dog")']
ATTRIBUTES = [*FIELDS[:3], "has(event.attributes.nsfw) && event.attributes.nsfw == true"]
MATCHES = [*FIELDS[:3], 'has(event.prompt) && event.prompt.matches("(?i)dog")']


def main() -> None:
    value = json.dumps(EVENT).encode()
    print("record")
    show("image event", parser(value))
    headers = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}
    show("CloudEvent, binary mode", parser(value, headers))
    envelope = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": EVENT}
    structured = {"content-type": "application/cloudevents+json"}
    show("CloudEvent, structured mode", parser(json.dumps(envelope).encode(), structured))
    show("S3 notification of 10 objects", parser(json.dumps(NOTIFICATION).encode()))
    print("five rules, of which the last takes the event")
    cases = {"scores": SCORES_ONLY, "scores, tenant, generator": FIELDS, "with a prompt": PROMPT}
    for name, conditions in {**cases, "with attributes": ATTRIBUTES, "with a regular expression": MATCHES}.items():
        show(name, router(conditions))


def parser(value: bytes, headers: dict[str, str] | None = None) -> Callable[[], object]:
    pairs = tuple((name, text.encode()) for name, text in (headers or {}).items())
    record = Record(Partition("images.in", 0), 0, value, headers=pairs)
    return lambda: parse(record)


def router(conditions: list[str]) -> Callable[[], object]:
    rules = [{"name": f"r{n}", "when": text, "route": {"action": "reject"}} for n, text in enumerate(conditions)]
    document = {
        "schema": "sluice.policy/1",
        "version": "1",
        "rules": [*rules, {"name": "z", "route": {"action": "pass"}}],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "policy.yaml")
        path.write_text(json.dumps(document))  # JSON is YAML
        policy = load_policy(path)
    event, scores = ImageEvent.model_validate(EVENT), Scores(quality=4.2, correspondence=3.0)
    return lambda: policy.route(event, scores)


def show(name: str, work: Callable[[], object]) -> None:
    number = 5_000
    best = min(timeit.repeat(work, timer=time.process_time, number=number, repeat=7)) / number
    print(f"  {name:32} {best * 1e6:7.1f} us")


if __name__ == "__main__":
    main()
