import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client import CollectorRegistry, generate_latest

from ops.dev.ports import free_ports
from worker.apps.http.app import build_app
from worker.apps.http.meter import Meter
from worker.apps.http.opening import OpenGateway, open_gateway
from worker.cache.client import connect_embedded
from worker.review.http.bearer_keys import digest_of
from worker.scoring.engine import EngineError, Features, Prompts, Views
from worker.scoring.model import Model, load_model
from worker.settings import Settings
from worker.telemetry.metrics import Metrics

LOCAL = ("127.0.0.1", 5000)
SCORE = "/v1/score"


@dataclass
class FakeEngine:
    """Features are random but for the first, which holds how many images came; `before` may raise or wait."""

    model: Model
    before: Callable[[Views], None] = lambda views: None
    batches: list[int] = field(default_factory=list)
    closed: bool = False
    max_batch: int = 64

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        size = len(next(iter(views.values())))
        self.before(views)
        self.batches.append(size)
        rng = np.random.default_rng(7)
        return {
            tower.name: rng.normal(size=(size, tower.features)).astype(np.float32)
            for tower in self.model.manifest.towers
        }

    def close(self) -> None:
        self.closed = True


@dataclass
class Bench:
    client: TestClient
    engine: FakeEngine
    registry: CollectorRegistry
    gate: OpenGateway

    def score(self, image: bytes, **fields: str) -> Any:
        return self.client.post(SCORE, files={"image": ("a.jpg", image)}, data=fields)

    def counted(self, caller: str, answer: str) -> float:
        labels = {"caller": caller, "answer": answer}
        return self.registry.get_sample_value("sluice_gateway_requests_total", labels) or 0.0


Open = Callable[..., Bench]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mst-lite")


@pytest.fixture
def open_bench(model: Model, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        @contextmanager
        def opened(settings: Mapping[str, Any], peer: tuple[str, int], before: Any) -> Iterator[Bench]:
            registry = CollectorRegistry()
            engine = FakeEngine(model, before or (lambda views: None))
            app = build_app()
            gate = open_gateway(
                Settings(files={"roots": [str(tmp_path)]}, **settings),
                model,
                engine,
                connect_embedded(),
                Metrics(registry),
                Meter(registry),
            )
            app.state.gateway = gate.gateway
            with TestClient(app, base_url="http://127.0.0.1", client=peer, raise_server_exceptions=False) as client:
                yield Bench(client, engine, registry, gate)
                assert client.portal is not None
                client.portal.call(gate.close)
            assert engine.closed

        def open_it(*, peer: tuple[str, int] = LOCAL, before: Any = None, **settings: Any) -> Bench:
            return stack.enter_context(opened(settings, peer, before))

        yield open_it


def picture(shade: int = 90, size: int = 300) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 120, 30)).save(file, "PNG")
    return file.getvalue()


def event(image: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema": "sluice.image-event/1",
        "id": "42",
        "occurred_at": "2026-01-02T03:04:05Z",
        "image": image,
        **more,
    }


def inline(image: bytes) -> dict[str, str]:
    return {"kind": "inline", "bytes": base64.b64encode(image).decode()}


def is_problem(answer: Any, status: int, kind: str) -> bool:
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["type"] == f"urn:sluice:problem:{kind}"
    )


def test_an_uploaded_image_gets_scores_and_a_route(open_bench: Open, model: Model) -> None:
    bench = open_bench()
    answer = bench.score(picture(), tenant="acme", priority="70", attributes='{"a": 1}', id="mine")
    body = answer.json()
    assert answer.status_code == 200, body
    assert 1 <= body["scores"]["quality"] <= 5
    assert body["route"]["action"] in {"pass", "review", "reject"}
    assert (body["event_id"], body["cached"], body["model"]) == ("mine", False, model.manifest.digest)
    assert body["timings"]["total_ms"] > 0
    assert bench.counted("local", body["route"]["action"]) == 1


def test_an_event_is_judged_like_the_upload_of_its_image_and_from_the_cache(open_bench: Open) -> None:
    bench = open_bench()
    first = bench.score(picture()).json()
    second = bench.client.post(SCORE, json=event(inline(picture()))).json()
    assert second["cached"]
    assert second["scores"] == first["scores"]
    assert second["content_hash"] == first["content_hash"]
    assert bench.engine.batches == [1]


def test_a_file_is_read_below_the_roots_and_nowhere_else(open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench()
    (tmp_path / "a.png").write_bytes(picture())
    inside = bench.client.post(SCORE, json=event({"kind": "file", "path": str(tmp_path / "a.png")}))
    outside = bench.client.post(SCORE, json=event({"kind": "file", "path": "/etc/hostname"}))
    assert inside.status_code == 200
    assert is_problem(outside, 422, "reference-refused")


def test_requests_that_come_together_are_one_batch(open_bench: Open) -> None:
    bench = open_bench(intake={"batch_wait_seconds": 60.0, "batch_size": 4})
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda shade: bench.score(picture(shade)).status_code, range(4)))
    assert answers == [200] * 4
    assert bench.engine.batches == [4]


def test_one_image_asked_for_many_times_at_once_is_scored_once(open_bench: Open) -> None:
    go = threading.Event()
    bench = open_bench(before=lambda views: go.wait(30))
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(bench.score, picture()) for _ in range(6)]
        while (bench.registry.get_sample_value("sluice_gateway_requests_in_flight") or 0) < 6:
            time.sleep(0.01)
        go.set()
        answers = [answer.result().json() for answer in asked]
    assert bench.engine.batches == [1]
    assert sorted(answer["cached"] for answer in answers) == [False] + [True] * 5


def test_a_broken_image_is_refused_and_routed_to_review(open_bench: Open) -> None:
    answer = open_bench().score(picture()[:-400])
    assert is_problem(answer, 422, "truncated-image")
    assert answer.json()["route"]["action"] == "review"


def test_what_is_no_image_is_refused_and_routed_to_review(open_bench: Open) -> None:
    bench = open_bench()
    answer = bench.score(b"hello")
    assert is_problem(answer, 422, "unsupported-format")
    assert answer.json()["route"]["action"] == "review"
    assert bench.counted("local", "unsupported-format") == 1


def test_a_bomb_is_refused(open_bench: Open) -> None:
    answer = open_bench(images={"max_pixels": 1000}).score(picture())
    assert is_problem(answer, 422, "image-too-large")


def test_an_image_that_the_engine_fails_on_does_not_take_the_others_with_it(open_bench: Open) -> None:
    def choke(views: Views) -> None:
        if any(image[..., 0].max() == 13 for image in next(iter(views.values()))):
            raise EngineError("cannot digest it")

    bench = open_bench(before=choke, intake={"batch_wait_seconds": 60.0, "batch_size": 3})
    with ThreadPoolExecutor(3) as threads:
        good, bad, fine = threads.map(lambda shade: bench.score(picture(shade)), (200, 13, 100))
    assert (good.status_code, fine.status_code) == (200, 200)
    assert is_problem(bad, 422, "engine-failed")
    assert bad.json()["route"]["action"] == "review"


def test_an_engine_that_is_away_is_told_with_when_to_try_again(open_bench: Open) -> None:
    def away(views: Views) -> None:
        raise EngineError("no replica")

    answer = open_bench(before=away).score(picture())
    assert is_problem(answer, 503, "engine-failed")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["route"]["action"] == "review"


def test_a_store_that_is_away_is_told_with_when_to_try_again(open_bench: Open) -> None:
    (port,) = free_ports(1)
    bench = open_bench(http={"allowed_hosts": ["127.0.0.1"]})
    answer = bench.client.post(SCORE, json=event({"kind": "http", "url": f"http://127.0.0.1:{port}/a.png"}))
    assert is_problem(answer, 503, "fetch-failed")
    assert "retry-after" in answer.headers
    assert answer.json()["route"]["action"] == "review"


def test_a_rule_without_an_answer_fails_closed(open_bench: Open, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        """
schema: sluice.policy/1
version: '1'
rules:
  - name: strange
    when: has(event.attributes.level) && event.attributes.level > 3
    route: {action: pass}
  - {name: rest, route: {action: pass}}
"""
    )
    answer = open_bench(policy=str(policy)).score(picture(), attributes='{"level": "high"}')
    assert is_problem(answer, 500, "policy-failed")
    assert answer.json()["route"]["action"] == "review"


def test_an_answer_that_takes_too_long_is_given_up_and_the_seat_kept_until_it_is_over(open_bench: Open) -> None:
    go = threading.Event()
    limits = {"timeout_seconds": 1.0, "max_requests": 1}
    bench = open_bench(before=lambda views: go.wait(30), gateway=limits)
    answer = bench.score(picture())
    assert is_problem(answer, 504, "timed-out")
    assert answer.json()["route"]["action"] == "review"
    assert is_problem(bench.score(picture(1)), 503, "busy")
    go.set()
    deadline = time.monotonic() + 60
    while bench.score(picture()).status_code != 200:
        assert time.monotonic() < deadline


def test_a_gateway_that_is_replaced_finishes_what_has_begun(open_bench: Open) -> None:
    go = threading.Event()
    bench = open_bench(before=lambda views: go.wait(30))
    portal = bench.client.portal
    assert portal is not None
    yet_to_come = portal.call(bench.gate.gateway.limits.enter, "somebody whose body is under way")
    with ThreadPoolExecutor(2) as threads:
        scored = threads.submit(bench.score, picture())
        while bench.gate.gateway.limits.requests < 2:
            time.sleep(0.01)
        closed = threads.submit(portal.call, bench.gate.close)
        go.set()
        assert scored.result().status_code == 200
        assert not bench.engine.closed
        portal.call(yet_to_come.leave)
        closed.result()
    assert bench.engine.closed


def test_a_caller_has_its_share_of_seats_and_no_more(open_bench: Open) -> None:
    go = threading.Event()
    keys = {"greedy": digest_of("g" * 40), "modest": digest_of("m" * 40)}
    limits = {"keys": keys, "max_requests": 2, "max_requests_a_caller": 1}
    bench = open_bench(before=lambda views: go.wait(30), gateway=limits)

    def ask(key: str, shade: int) -> Any:
        headers = {"Authorization": f"Bearer {key * 40}"}
        return bench.client.post(SCORE, files={"image": ("a", picture(shade))}, headers=headers)

    def wait_for(requests: int) -> None:
        while bench.registry.get_sample_value("sluice_gateway_requests_in_flight") != requests:
            time.sleep(0.01)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, "g", 1)
        wait_for(1)
        more = ask("g", 2)
        second = threads.submit(ask, "m", 3)
        wait_for(2)
        go.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    assert is_problem(more, 429, "too-many-requests")
    assert int(more.headers["retry-after"]) >= 1
    assert ask("g", 4).status_code == 200


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(open_bench: Open) -> None:
    bench = open_bench(images={"max_bytes": 1000})
    head = {"content-type": "application/json"}
    known = bench.client.post(SCORE, content=b"x" * 1_200_000, headers=head)
    pieces = bench.client.post(SCORE, content=iter([b"x" * 600_000] * 3), headers=head)
    assert is_problem(known, 413, "body-too-large")
    assert is_problem(pieces, 413, "body-too-large")


def test_bodies_share_a_budget(open_bench: Open) -> None:
    bench = open_bench(gateway={"max_bytes_in_flight": 500})
    answer = bench.score(picture())
    assert is_problem(answer, 503, "busy")
    assert "retry-after" in answer.headers


def test_a_large_upload_is_refused_by_the_image_limit(open_bench: Open) -> None:
    assert is_problem(open_bench(images={"max_bytes": 100}).score(picture()), 422, "image-too-large")


@pytest.mark.parametrize(
    ("headers", "body", "status", "kind", "says"),
    [
        ({"content-type": "text/plain"}, b"x", 415, "unsupported-media-type", "application/json"),
        ({"content-type": "application/json"}, b"{", 422, "invalid-request", "not JSON"),
        ({"content-type": "application/json"}, b'{"id": "1"}', 422, "invalid-request", "image: is missing"),
        ({"content-type": "multipart/form-data"}, b"x", 422, "invalid-request", "boundary"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"x", 422, "invalid-request", "form"),
    ],
)
def test_a_request_that_cannot_be_read_is_told_why(
    open_bench: Open, headers: dict[str, str], body: bytes, status: int, kind: str, says: str
) -> None:
    answer = open_bench().client.post(SCORE, content=body, headers=headers)
    assert is_problem(answer, status, kind)
    assert says in answer.json()["detail"]


def test_a_mistyped_field_is_named(open_bench: Open) -> None:
    bench = open_bench()
    form = bench.score(picture(), promt="a cat")
    whole = bench.client.post(SCORE, json=event(inline(picture()), promt="a cat"))
    twice = bench.client.post(SCORE, files={"image": ("a", picture())}, data={"id": ["1", "2"]})
    assert "'promt'" in form.json()["detail"]
    assert "did you mean 'prompt'" in whole.json()["detail"]
    assert "twice" in twice.json()["detail"]
    assert all(is_problem(answer, 422, "invalid-request") for answer in (form, whole, twice))


def test_a_form_without_an_image_is_told_so(open_bench: Open) -> None:
    bench = open_bench()
    text = bench.client.post(SCORE, files={"image": (None, "not a file"), "id": (None, "1")})
    none = bench.client.post(SCORE, files={"id": (None, "1")})
    assert is_problem(text, 422, "invalid-request")
    assert is_problem(none, 422, "invalid-request")
    assert "no file `image`" in none.json()["detail"]


def test_a_form_that_breaks_off_is_no_upload(open_bench: Open) -> None:
    body = b'--a\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture()
    headers = {"content-type": "multipart/form-data; boundary=a"}
    assert is_problem(open_bench().client.post(SCORE, content=body, headers=headers), 422, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        b'{"attributes": {' + b",".join(b'"%x":0' % i for i in range(60_000)) + b"}}",
        b"{" + b",".join(b'"%x":0' % i for i in range(60_000)) + b"}",
        b'{"attributes": {"a": ' + b"[" * 60_000,
    ],
)
def test_a_body_of_many_small_values_is_refused_before_it_is_read(open_bench: Open, body: bytes) -> None:
    """At the size that an image may have, reading it would stop the replica for half a minute and take gigabytes."""
    answer = open_bench().client.post(SCORE, content=body, headers={"content-type": "application/json"})
    assert is_problem(answer, 422, "invalid-request")
    assert "more than 50000" in answer.json()["detail"]


def test_a_caller_who_leaves_amid_the_body_is_no_fault_of_ours(open_bench: Open) -> None:
    bench = open_bench()
    happens: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": SCORE,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": LOCAL,
        "http_version": "1.1",
    }

    async def receive() -> dict[str, Any]:
        return next(happens)

    async def send(message: Any) -> None:
        pass

    assert bench.client.portal is not None
    with structlog.testing.capture_logs() as logs:
        bench.client.portal.call(bench.client.app, scope, receive, send)
    assert [each for each in logs if each["log_level"] == "error"] == []
    assert bench.counted("local", "unfinished") == 1
    assert bench.gate.gateway.limits.requests == 0


def test_keys_open_the_door_to_anybody_who_has_one(open_bench: Open) -> None:
    bench = open_bench(peer=("203.0.113.9", 1), gateway={"keys": {"shop": digest_of("k" * 43)}})
    image = {"image": ("a", picture())}
    none = bench.client.post(SCORE, files=image)
    wrong = bench.client.post(SCORE, files=image, headers={"Authorization": "Bearer no"})
    right = bench.client.post(SCORE, files=image, headers={"Authorization": f"bearer {'k' * 43}"})
    assert is_problem(none, 401, "key-required")
    assert is_problem(wrong, 401, "key-required")
    assert none.headers["www-authenticate"] == "Bearer"
    assert right.status_code == 200
    assert b'caller="shop"' in generate_latest(bench.registry)


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (("203.0.113.9", 1), {}),
        (LOCAL, {"host": "evil.example"}),
        (LOCAL, {"host": "[::1"}),
        (LOCAL, {"host": "[localhost]"}),
        (LOCAL, {"x-forwarded-for": "203.0.113.9"}),
        (LOCAL, {"origin": "https://evil.example"}),
    ],
)
def test_without_keys_only_programs_on_this_machine_are_answered(
    open_bench: Open, peer: tuple[str, int], headers: dict[str, str]
) -> None:
    bench = open_bench(peer=peer)
    answer = bench.client.post(SCORE, files={"image": ("a", picture())}, headers=headers)
    assert is_problem(answer, 403, "loopback-only")
    assert bench.engine.batches == []


def test_the_open_inference_protocol_tells_of_the_model(open_bench: Open, model: Model) -> None:
    client = open_bench().client
    manifest = model.manifest
    assert client.get("/v2").json()["name"] == "sluice"
    metadata = client.get(f"/v2/models/{manifest.name}").json()
    assert metadata["versions"] == [manifest.version]
    assert {tensor["name"]: tensor["shape"] for tensor in metadata["inputs"]} == {
        name: [-1, *view.shape] for name, view in manifest.views.items()
    }
    assert [tensor["name"] for tensor in metadata["outputs"]] == [tower.name for tower in manifest.towers]
    assert client.get(f"/v2/models/{manifest.name}/versions/{manifest.version}").json() == metadata
    assert is_problem(client.get("/v2/models/other"), 404, "unknown-model")
    assert is_problem(client.get(f"/v2/models/{manifest.name}/versions/0.0"), 404, "unknown-model")


def test_what_the_open_inference_protocol_refuses_is_told_in_its_words(open_bench: Open) -> None:
    """Its clients read `error`, and know nothing of problems."""
    unknown = open_bench().client.get("/v2/models/other")
    stranger = open_bench(peer=("203.0.113.9", 1)).client.get("/v2")
    assert [answer.status_code for answer in (unknown, stranger)] == [404, 403]
    assert all(answer.json()["error"] == answer.json()["detail"] for answer in (unknown, stranger))


def test_health_tells_the_gateway_from_the_engine_and_needs_no_key(open_bench: Open, model: Model) -> None:
    def away(views: Views) -> None:
        raise EngineError("no replica")

    keys = {"keys": {"shop": digest_of("k" * 43)}}
    well, ill = open_bench(gateway=keys).client, open_bench(gateway=keys, before=away).client
    name = model.manifest.name
    assert well.get("/v2/health/live").json() == ill.get("/v2/health/live").json() == {"live": True}
    assert well.get("/v2/health/ready").json() == {"ready": True}
    assert well.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
    assert ill.get("/v2/health/ready").status_code == 503
    assert ill.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": False}
    assert is_problem(well.get("/v2"), 401, "key-required")


def test_openapi_describes_both_kinds_of_request(open_bench: Open) -> None:
    document = open_bench().client.get("/v1/openapi.json").json()
    body = document["paths"][SCORE]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "422" in document["paths"][SCORE]["post"]["responses"]
    json.dumps(document)


def test_clients_can_be_made_from_the_openapi_document(open_bench: Open) -> None:
    """Generators look for schemas below `components` only, and skip a path whose parameters are not described."""
    document = open_bench().client.get("/v1/openapi.json").json()
    text = json.dumps(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"(#/[^"]+)"', text)) <= known
    assert '"HTTPValidationError"' not in json.dumps(document["paths"]), "problems are what is answered"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            described = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert described == set(re.findall(r"{(\w+)}", path))
    assert document["paths"][SCORE]["post"]["security"] == document["paths"]["/v2"]["get"]["security"] != []
    assert "Retry-After" in document["paths"][SCORE]["post"]["responses"]["503"]["headers"]


def test_an_address_that_is_not_there_is_a_problem_too(open_bench: Open) -> None:
    assert is_problem(open_bench().client.get("/v1/nothing"), 404, "not-found")


def test_a_slash_too_many_sends_no_key_elsewhere(open_bench: Open) -> None:
    answer = open_bench().client.post(f"{SCORE}/", headers={"host": "localhost"}, follow_redirects=False)
    assert is_problem(answer, 404, "not-found")
