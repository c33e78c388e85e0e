"""The four applications of deploy/serve/local.yaml on a real cluster and real servers, asked by HTTP as users would."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from ops.dev.ports import free_ports
from ops.dev.servers import KafkaServer, RedisServer
from tests.integration.ray_nodes import RayNodes, ending_all_processes, wait_for
from worker.apps.desk import FIRST_LINK
from worker.cli.main import app
from worker.review.http.bearer_keys import digest_of
from worker.samples.sample import SAMPLE_IMAGES
from worker.scoring.manifest import load_manifest
from worker.scoring.model import SHIPPED_MODELS
from worker.settings import TopicSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LOCAL = Path(__file__).parents[2] / "deploy/serve/local.yaml"
PASSWORD = "correct horse battery"
PATIENCE_SECONDS = 120.0


@dataclass
class Site:
    nodes: RayNodes
    applications: dict[str, Any]
    """By name, as the config has them."""
    address: str
    config: Path

    def deploy(self, **gateway: Any) -> None:
        """All four, the gateway with these live changes."""
        self.applications["gateway"]["deployments"][0]["user_config"] = gateway
        self.nodes.deploy(*self.applications.values(), seconds=400)

    def score(self, image: bytes, **headers: str) -> httpx.Response:
        address = f"{self.address}/gateway/v1/score"
        return httpx.post(address, files={"image": ("a.png", image)}, headers=headers, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def site(
    _kafka_server: KafkaServer, _redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    for server in (_kafka_server, _redis_server):
        if server.pid is None:
            server.start()
    folder = tmp_path_factory.mktemp("site")
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    config = folder / "sluice.yaml"
    topics = {name: f"{folder.name}-{port}-{name}" for name in TopicSettings.model_fields}
    settings = {
        "kafka": {
            "bootstrap_servers": _kafka_server.bootstrap_servers,
            "group_id": f"{folder.name}-{port}",
            "topics": topics,
        },
        "redis": {"url": _redis_server.url},
        "files": {"roots": [str(SAMPLE_IMAGES)]},
        "images": {"max_bytes": 1024 * 1024},
    }
    config.write_text(yaml.safe_dump(settings))
    assert CliRunner().invoke(app, ["topics", "create", "--config", str(config)]).exit_code == 0

    shipped = yaml.safe_load(LOCAL.read_text())
    applications = {each["name"]: each for each in shipped["applications"]}
    for each in applications.values():
        each["args"]["config"] = str(config)
    applications["desk"]["args"] |= {"data": str(folder / "desk"), "settings": {"web": {"public_url": address}}}
    with ending_all_processes():
        nodes = RayNodes({"host": "127.0.0.1", "port": port})
        try:
            nodes.add("node")
            site = Site(nodes, applications, address, config)
            site.deploy()
            yield site
        finally:
            nodes.close()


@pytest.fixture
def person(site: Site) -> Iterator[httpx.Client]:
    """Somebody who came by the first user's link, as the replica's log has it."""
    (line,) = site.nodes.logged(FIRST_LINK)
    address, _, token = line.partition(": ")[2].partition("/#invitation=")
    assert address == site.address
    with httpx.Client(base_url=site.address, timeout=PATIENCE_SECONDS) as client:
        client.headers["x-csrf-token"] = client.get("/v1/sign-in").json()["csrf"]
        me = client.post("/v1/invitations/accept", json={"token": token, "name": "ann", "password": PASSWORD})
        assert me.status_code == 200, me.text
        client.headers["x-csrf-token"] = me.json()["csrf"]
        yield client


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((320, 320), shade).convert("RGB").save(file, "PNG")
    return file.getvalue()


def test_an_upload_and_an_event_are_scored_by_the_engine_application(site: Site) -> None:
    image = picture(40)
    upload = site.score(image)
    event = {
        "schema": "sluice.image-event/1",
        "id": "1",
        "occurred_at": "2026-01-02T03:04:05Z",
        "image": {"kind": "inline", "bytes": base64.b64encode(image).decode()},
    }
    again = httpx.post(f"{site.address}/gateway/v1/score", json=event, timeout=PATIENCE_SECONDS)
    assert upload.status_code == again.status_code == 200, upload.text
    assert upload.json()["scores"] == again.json()["scores"]
    assert (upload.json()["cached"], again.json()["cached"]) == (False, True), "the scores should be in Redis"
    assert upload.json()["model"] == load_manifest(SHIPPED_MODELS / "mst-lite").digest


def test_what_is_refused_is_refused_behind_the_proxy_too(site: Site) -> None:
    large = site.score(b"x" * 3_000_000)
    broken = site.score(picture(3)[:-500])
    stranger = site.score(picture(3), host="evil.example")
    assert (large.status_code, broken.status_code, stranger.status_code) == (413, 422, 403)
    assert broken.json()["route"]["action"] == "review"
    assert {answer.headers["content-type"] for answer in (large, broken, stranger)} == {"application/problem+json"}


def test_the_open_inference_protocol_tells_that_the_engine_is_there(site: Site) -> None:
    gateway = f"{site.address}/gateway"
    assert httpx.get(f"{gateway}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{gateway}/v2/health/ready", timeout=PATIENCE_SECONDS).json() == {"ready": True}
    assert httpx.get(f"{gateway}/v2/models/mst-lite").json()["name"] == "mst-lite"
    assert "/v1/score" in httpx.get(f"{gateway}/v1/openapi.json").json()["paths"]


def test_live_changes_bring_keys_and_batches_without_a_restart(site: Site) -> None:
    before = site.nodes.replicas("gateway")
    key = "k" * 43
    site.deploy(
        gateway={"keys": {"shop": digest_of(key)}},
        intake={"batch_size": 4, "batch_wait_seconds": 60},
    )
    wait_for(lambda: site.score(b"").status_code == 401, site.nodes.tell)
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda shade: site.score(picture(shade), Authorization=f"Bearer {key}"), range(60, 64))
        )
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    assert len({answer.json()["timings"]["engine_ms"] for answer in answers}) == 1, "four requests should be one batch"
    assert site.nodes.replicas("gateway") == before
    site.deploy()
    wait_for(lambda: site.score(b"").status_code == 422, site.nodes.tell)


def test_events_become_verdicts_and_wait_at_the_desk(site: Site, person: httpx.Client) -> None:
    page = person.get("/")
    assert "<title>" in page.text
    assert person.get("/js/main.js").status_code == 200
    assert httpx.get(f"{site.address}/v1/queues").status_code == 401

    with person.stream("GET", "/v1/events") as live:
        lines = live.iter_lines()
        assert next(lines) == "retry: 1000"
        submitted = CliRunner().invoke(app, ["submit", str(SAMPLE_IMAGES), "--config", str(site.config)])
        assert submitted.exit_code == 0, submitted.output
        assert next(line for line in lines if line.startswith("event:")) == "event: desk"

    arguments = ["tail", "--from-beginning", "--limit", "30", "--json", "--config", str(site.config)]
    verdicts = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert len(verdicts) == 30
    wait_for(lambda: any(queue["open"] for queue in person.get("/v1/queues").json()), site.nodes.tell)
    queue = next(queue for queue in person.get("/v1/queues").json() if queue["open"])
    leased = person.post(f"/v1/queues/{queue['name']}/leases", json={"count": 1}).json()
    assert leased, "an item should be leased"
