"""Broken inputs from valid ones: changes of structure in JSON and YAML values, and changes of bytes."""

import base64
import copy
import io
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml
from PIL import Image

Headers = tuple[tuple[str, bytes | None], ...]


def _png() -> str:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 120, 40)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


EVENT: Final[Mapping[str, Any]] = {
    "schema": "sluice.image-event/1",
    "id": "e-1",
    "occurred_at": "2026-11-30T12:00:00Z",
    "tenant": "acme",
    "image": {"kind": "inline", "bytes": _png()},
    "prompt": "a fox in the snow",
    "generator": "sd-1.5",
    "priority": 60,
    "attributes": {"country": "de", "score": 0.5, "tags": ["a", "b"], "nested": {"deep": [1, 2, {"x": None}]}},
}
IMAGES: Final[Sequence[Mapping[str, Any]]] = (
    EVENT["image"],
    {"kind": "s3", "bucket": "uploads", "key": "a/b.png", "etag": "abc", "version_id": "v1"},
    {"kind": "http", "url": "https://127.0.0.1/a.png?x=1"},
    {"kind": "file", "path": "/etc/hostname"},
)
NOTIFICATION: Final[Mapping[str, Any]] = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": "2026-11-30T12:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "uploads", "arn": "arn:aws:s3:::uploads"},
                "object": {"key": f"some+folder/{name}.png", "size": 1024, "eTag": "d41d8", "sequencer": "0A1B"},
            },
        }
        for name in ("one", "two")
    ]
}
CLOUD_EVENT: Final[Mapping[str, Any]] = {
    "specversion": "1.0",
    "id": "ce-1",
    "source": "/uploads",
    "type": "image.created",
    "time": "2026-11-30T12:00:00Z",
    "datacontenttype": "application/json",
}
POLICY: Final = """\
schema: sluice.policy/1
version: "fuzz"
constants: {low: 2.0, high: 4.0}
rules:
  - name: bad
    when: scores.quality < constants.low
    route: {action: reject, labels: [poor]}
  - name: by-country
    when: event.tenant == 'acme' && has(event.attributes.country) && event.attributes.country in ['de', 'fr']
    route: {action: review, queue: quality, priority: 70}
  - name: prompts
    when: has(event.prompt) && event.prompt.matches('(fox|bear) in') && scores.quality < constants.high
    route: {action: review, queue: prompts}
  - name: default
    route: {action: pass}
failures: {queue: failures, priority: 70}
tenants:
  umbrella: {constants: {low: 3.0}}
"""
SETTINGS: Final = """\
model: mst-lite
policy: s3://policies/live.yaml
shadow_policies: {stricter: stricter.yaml}
kafka:
  bootstrap_servers: "127.0.0.1:9092"
  group_id: sluice
  topics: {images: images.in, dead: images.dead}
  security_protocol: SASL_SSL
  sasl_mechanism: SCRAM-SHA-512
  sasl_username: me
  sasl_password: "secret-of-the-fuzz"
redis: {url: "redis://:secret-of-the-fuzz@127.0.0.1:6379/0", ttl_seconds: 60}
s3: {endpoint_url: "http://127.0.0.1:8333", region: us-east-1}
files: {roots: [./images]}
http: {allowed_hosts: ["*.example.com"]}
intake: {batch_size: 16, max_attempts: 3, retry_base_seconds: 0.1}
review:
  queues: {quality: {agree: 2, votes: 3}}
  webhook: {url: "https://hook.example/x", secret: "secret-of-the-fuzz-long"}
web: {port: 8420}
"""

_DEEP: Final = "deeply-nested"
_ODD: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 2**31, 2**63, 2**200, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "", " ", "\x00",
    "\ud800", "\u202e", "ﷺ" * 50, "a" * 5000, "%", "%ff", "../../etc/passwd", "${jndi:ldap://x}", "{{7*7}}", "'; --",
    [], {}, [[]], [None] * 300, {"": ""}, {"__proto__": {}}, "NaN", "2026-13-45T99:99:99Z", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+23:59", "s3://b/k", "http://[::1", "http://169.254.169.254/latest", "file:///etc/passwd", "://",
)  # fmt: skip
_BYTES: Final[Sequence[bytes]] = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"{", b"}", b"[" * 2000, b'"', b"\\u0000", b"\\ud800",
    b",,", b":" * 300, b"1e9999", b"-", b"NaN", b"\r\n", b"\t", b"&a *a", b"!!python/object:os.system", b"<<: ",
    b"---\n", b"%",
    b"$-1\r\n", b"*1000000000\r\n", b"$1000000000\r\n", b":99999999999999999999\r\n", b"-ERR x\r\n", b"+OK\r\n",
)  # fmt: skip


def record(kind: str, number: int, rng: random.Random) -> tuple[bytes, Headers]:
    """A record of the images topic, most of them broken: an `event`, a `notification` or a `cloudevent`."""
    event = copy.deepcopy(dict(EVENT)) | {"id": f"{kind}-{number}", "image": dict(rng.choice(IMAGES))}
    notification = copy.deepcopy(dict(NOTIFICATION))
    if kind == "event":
        return broken_json(event, rng), ()
    if kind == "notification":
        return broken_json(notification, rng), ()
    data = rng.choice((event, notification, notification["Records"][0]))
    envelope = dict(CLOUD_EVENT) | {"id": f"ce-{number}"}
    if rng.random() < 0.5:
        headers: Headers = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
        return broken_json(envelope | {"data": data}, rng), broken_headers(headers, rng)
    headers = (
        *((f"ce_{name}", value.encode()) for name, value in envelope.items() if name != "datacontenttype"),
        ("content-type", b"application/json"),
    )
    return broken_json(data, rng), broken_headers(headers, rng)


def broken_json(document: Any, rng: random.Random) -> bytes:
    changed = broken_value(document, rng)
    text = json.dumps(changed, ensure_ascii=rng.random() < 0.8)
    return broken_bytes(_nested(text, rng).encode("utf-8", "surrogatepass"), rng, often=0.3)


def broken_yaml(text: str, rng: random.Random) -> bytes:
    changed = broken_value(yaml.safe_load(text), rng) if rng.random() < 0.6 else None
    if changed is not None:
        try:
            text = yaml.safe_dump(changed, allow_unicode=True)
        except (yaml.YAMLError, ValueError, UnicodeError):
            text = repr(changed)
    return broken_bytes(_nested(text, rng).encode("utf-8", "surrogatepass"), rng, often=0.6)


def broken_headers(headers: Headers, rng: random.Random) -> Headers:
    if rng.random() < 0.5:
        return headers
    changed = list(headers)
    at = rng.randrange(len(changed))
    name, value = changed[at]
    changes: Sequence[Callable[[], None]] = (
        lambda: changed.pop(at) and None,
        lambda: changed.append((name, value)),
        lambda: changed.__setitem__(at, (name.upper(), value)),
        lambda: changed.__setitem__(at, (name, None)),
        lambda: changed.__setitem__(at, (name, broken_bytes(value or b"", rng, often=1.0))),
    )
    rng.choice(changes)()
    return tuple(changed)


def broken_value(document: Any, rng: random.Random) -> Any:
    """A copy with up to four changes: odd values, keys that are gone, doubled or misspelt, values moved or nested."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        spots = list(_spots(changed))
        if not spots:
            break
        holder, key = rng.choice(spots)
        change = rng.randrange(6)
        if change <= 2:
            holder[key] = copy.deepcopy(rng.choice(_ODD))
        elif change == 3:
            del holder[key]
        elif change == 4:
            holder[key] = _DEEP  # by itself no library would write it
        elif isinstance(holder, dict):
            holder[f"{key}{rng.choice(('s', '_', 'X'))}"] = holder.pop(key)
        else:
            holder.append(copy.deepcopy(holder[key]))
    return changed


def broken_bytes(data: bytes, rng: random.Random, *, often: float) -> bytes:
    """`data`, of which so many come back with a few bytes cut, changed, put in or repeated."""
    if rng.random() >= often:
        return data
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        change = rng.randrange(5)
        if change == 0:
            data = data[:at]
        elif change == 1:
            data = data[:at] + rng.choice(_BYTES) + data[at:]
        elif change == 2:
            data = data[:at] + rng.randbytes(rng.choice((1, 1, 8))) + data[at + 1 :]
        elif change == 3:
            data = data[:at] + data[at + rng.randrange(1, 20) :]
        else:
            data = data[:at] + data[at : at + 30] * rng.choice((2, 30)) + data[at:]
    return data


def _nested(text: str, rng: random.Random) -> str:
    """Text with lists and objects, up to thousands deep, where `broken_value` wants them."""
    depth = rng.choice((1, 50, 800, 5000))
    opening, closing = rng.choice((("[", "]"), ('{"x": ', "}")))
    return re.sub(f'"?{_DEEP}"?', opening * depth + "1" + closing * depth, text)


def _spots(value: Any) -> Any:
    """Every place in a document: what holds it, and its key or index."""
    holders = [value]
    while holders:
        holder = holders.pop()
        pairs = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in list(pairs):
            yield holder, key
            if isinstance(inner, dict | list):
                holders.append(inner)
