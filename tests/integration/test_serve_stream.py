"""Engine and intake as Serve applications, on nodes of their own, with real Kafka and Redis."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient
from ray import serve

from tests.conftest import NewTopic, Servers
from tests.integration.ray_nodes import RayNodes, application, ending_all_processes, wait_for
from tests.integration.streams import Reader, Stream, assert_each_event_has_one_verdict
from worker.scoring.manifest import load_manifest
from worker.scoring.model import SHIPPED_MODELS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ending_all_processes():
        nodes = RayNodes()
        try:
            nodes.add("engine-node", "engine")
            nodes.add("intake-node", "intake")
            yield nodes
        finally:
            nodes.close()


@pytest.fixture
def stream(
    nodes: RayNodes, servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path
) -> Iterator[Stream]:
    """A test's own stream, whose intake ends with it; the engine is shared."""
    yield Stream(servers, new_topic, unique_name, tmp_path)
    if "intake" in serve.status().applications:
        serve.delete("intake")


def engine_application(**options: Any) -> dict[str, Any]:
    return application("engine", "engine", {}, **options)


def intake_application(stream: Stream, **options: Any) -> dict[str, Any]:
    return application("intake", "intake", {"config": str(stream.config)}, **options)


def other_model(folder: Path) -> Path:
    """mst-lite under another version, and so with another digest."""
    copied = shutil.copytree(SHIPPED_MODELS / "mst-lite", folder / "other-model")
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"version": "other"}))
    return copied


@contextmanager
def publishing(stream: Stream) -> Iterator[Callable[[], int]]:
    """Events come all the time, until the function is called that is given; it returns how many there were."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        published = thread.submit(stream.publish_until, stop)

        def finish() -> int:
            stop.set()
            return published.result()

        try:
            yield finish
        finally:
            stop.set()


def models_of(verdicts: Reader) -> set[object]:
    verdicts.read()
    return {value["model"] for value in verdicts.values}


def assert_none_failed(stream: Stream, verdicts: Reader) -> None:
    assert [value for value in verdicts.values if value.get("failure")] == []
    with stream.reader("dead") as dead:
        dead.read_rest()
        assert dead.values == []


def test_models_change_in_mid_stream_without_a_restart_and_each_event_has_one_verdict(
    nodes: RayNodes, stream: Stream, tmp_path: Path
) -> None:
    old, new = load_manifest(SHIPPED_MODELS / "mst-lite").digest, load_manifest(other_model(tmp_path)).digest
    nodes.deploy(engine_application(), intake_application(stream))
    before = nodes.replicas("engine") | nodes.replicas("intake")
    assert set(nodes.replicas("engine").values()) == {nodes.id_of("engine-node")}
    assert set(nodes.replicas("intake").values()) == {nodes.id_of("intake-node")}

    with stream.reader("verdicts") as verdicts, publishing(stream) as finish:
        verdicts.read_until(20, seconds=120)
        change = {"user_config": {"model": str(tmp_path / "other-model")}}
        # the intake first: it must wait for the engine, and work on meanwhile
        nodes.announce(engine_application(), intake_application(stream, **change))
        verdicts.read_until(verdicts.read() + 20, seconds=120)
        nodes.announce(engine_application(**change), intake_application(stream, **change))
        wait_for(lambda: new in models_of(verdicts), nodes.tell)
        assert nodes.replicas("engine") | nodes.replicas("intake") == before
        count = finish()
        verdicts.read_until(count, seconds=240)

        assert_each_event_has_one_verdict(stream, verdicts, count)
        assert_none_failed(stream, verdicts)
        assert models_of(verdicts) == {old, new}


def test_a_backlog_brings_replicas_up_to_the_partitions_and_stopping_them_leaves_nothing_half_done(
    nodes: RayNodes, stream: Stream, new_topic: NewTopic
) -> None:
    """Six replicas are allowed, but a third would find no partition to read."""
    stream.topics["images"] = new_topic(2)
    stream.change_kafka(topics=stream.topics, session_timeout_seconds=60)  # who dies would be a member till then
    slow = {
        "settings": {
            "intake": {"batch_size": 1, "batches_in_flight": 1, "max_records_in_flight": 20},
            "fairness": {"defer_surplus": False},  # a record that is moved is committed without a verdict
        }
    }
    scaling = {
        "min_replicas": 1,
        "max_replicas": 6,
        "upscale_delay_s": 0,
        "look_back_period_s": 11,
        "policy": {
            "policy_function": "worker.apps.autoscaling:LagPolicy",
            "policy_kwargs": {"records_per_replica": 10},
        },
    }
    intake = application("intake", "intake", {"config": str(stream.config)} | slow, autoscaling_config=scaling)
    nodes.deploy(engine_application(), intake)

    stream.publish(3000)
    wait_for(lambda: len(nodes.replicas("intake")) == 2, nodes.tell)
    with stream.reader("verdicts") as verdicts:
        verdicts.read_until(50, seconds=120)
        assert len(nodes.replicas("intake")) == 2
        serve.delete("intake")

        verdicts.read_rest()
        with KafkaAdminClient(bootstrap_servers=stream.bootstrap) as admin:
            (group,) = admin.describe_groups([stream.group]).values()
            assert group["members"] == []
            (offsets,) = admin.list_group_offsets({stream.group: None}).values()
        committed = sum(each.offset for partition, each in offsets.items())
        assert len({value["event_id"] for value in verdicts.values}) == len(verdicts.values) == committed
        assert 50 <= committed < 3000, "the replicas should stop in mid-stream"


def test_nodes_killed_in_mid_stream_lose_no_verdict_and_repeat_none(nodes: RayNodes, stream: Stream) -> None:
    """First the engine's node, then the intake's; a third node takes over from both."""
    stream.change_kafka(transaction_timeout_seconds=5)
    nodes.deploy(engine_application(), intake_application(stream))
    nodes.add("spare-node", "engine", "intake")

    with stream.reader("verdicts") as verdicts, publishing(stream) as finish:
        verdicts.read_until(20, seconds=120)
        for name in ("engine", "intake"):
            nodes.kill(f"{name}-node")
            moved = {nodes.id_of("spare-node")}
            wait_for(lambda name=name, moved=moved: set(nodes.replicas(name).values()) == moved, nodes.tell)
            verdicts.read_until(verdicts.read() + 20, seconds=120)
        count = finish()
        verdicts.read_until(count, seconds=240)

        assert_each_event_has_one_verdict(stream, verdicts, count)
        assert_none_failed(stream, verdicts)
