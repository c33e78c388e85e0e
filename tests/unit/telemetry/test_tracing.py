"""What an event went through can be read in its trace at a collector, from its record's headers to the decision."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from tests.unit.intake.member_bench import IN, Bench, FakeLog, FakeStore, event, http
from tests.unit.intake.pictures import png
from tests.unit.review.review_bench import ReviewBench, review_item
from tests.unit.telemetry.otlp_collector import Collector, attributes, running_collector
from worker.apps.engine import EngineReplica
from worker.apps.serve_engine import ServeEngine
from worker.images.errors import TransientFetchError
from worker.intake.event_traces import EventTraces
from worker.intake.log import CommitFailed, Output, Record
from worker.review.decision_traces import DecisionTraces
from worker.review.desk import Desk
from worker.scoring.engine import Features, blank_views
from worker.scoring.manifest import load_manifest
from worker.scoring.model import SHIPPED_MODELS
from worker.settings import Settings, TelemetrySettings
from worker.telemetry.open_tracing import open_tracing
from worker.telemetry.trace_context import CALLER
from worker.telemetry.tracing import Tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
UNSAMPLED = f"00-{'1' * 32}-{'2' * 16}-00".encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture
def tracing(collector: Collector) -> Iterator[Tracing]:
    opened = open_tracing(TelemetrySettings(traces_endpoint=collector.endpoint), "sluice-test")
    assert opened is not None
    with closing(opened):
        yield opened


def traced_bench(tracing: Tracing, *headers: bytes | None, samples: bool = False, **answers: Any) -> Bench:
    """One event for each `traceparent`, named by its offset; None: without the header."""
    records = [
        Record(IN, i, event(str(i), http(str(i))), None, (("traceparent", value),) if value else ())
        for i, value in enumerate(headers)
    ]
    store = FakeStore({f"http://images/{i}": png(red=i * 5) for i in range(len(headers))})
    store.answers.update({f"http://images/{name[1:]}": answer for name, answer in answers.items()})
    return Bench(FakeLog(records), store, traces=EventTraces(tracing, lambda: samples, group_id="sluice"))


def headers_of(outputs: list[Output]) -> set[bytes]:
    return {value for output in outputs for name, value in output.headers if name == "traceparent"}


def test_an_events_trace_has_a_span_for_each_stage_below_the_senders(tracing: Tracing, collector: Collector) -> None:
    bench = traced_bench(tracing, SAMPLED, None, i0=[TransientFetchError("503"), png(9)])
    bench.log.commit_errors = [CommitFailed("no answer")]
    bench.run_to(2)
    tracing.close()

    spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    root = collector.trace(TRACE)["process images.in"]
    assert root.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in spans if span is not root} == {root.span_id}
    assert sorted(span.name for span in spans) == sorted(
        ["commit", "commit", "decode", "engine", "fetch", "fetch", "policy", "process images.in"]
    )
    refused = [span for span in spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert {(span.name, span.status.message) for span in refused} == {
        ("fetch", "TransientFetchError: 503"),
        ("commit", "CommitFailed: no answer"),
    }
    said = attributes(root)
    assert said["sluice.event.id"] == "0"
    assert said["messaging.kafka.offset"] == 0
    assert said["sluice.route.action"] in {"pass", "review", "reject"}
    assert said["sluice.attempts"] == 2
    assert len(collector.spans) == len(spans), "the other event was not sampled"
    (passed_on,) = headers_of(bench.log.outputs)
    assert passed_on == f"00-{TRACE}-{root.span_id.hex()}-01".encode()


def test_an_event_without_a_trace_begins_one_if_it_is_sampled(tracing: Tracing, collector: Collector) -> None:
    bench = traced_bench(tracing, None, b"\xff\x00 nonsense", samples=True, i1=b"<html>")
    bench.run_to(2)
    tracing.close()

    roots = [span for span in collector.spans if span.name == "process images.in"]
    assert len({span.trace_id for span in roots}) == 2
    (failed,) = (span for span in roots if span.status.code == Status.STATUS_CODE_ERROR)
    assert attributes(failed)["error.type"] == "unsupported_format"
    assert len(headers_of(bench.log.outputs)) == 2
    told = generate_latest(bench.registry).decode()
    assert any(f'trace_id="{span.trace_id.hex()}"' in told for span in roots), "an exemplar leads to a trace"


def test_a_trace_that_its_sender_does_not_record_is_only_passed_on(tracing: Tracing, collector: Collector) -> None:
    bench = traced_bench(tracing, UNSAMPLED, samples=True)
    bench.run_to(1)
    tracing.close()
    assert headers_of(bench.log.outputs) == {UNSAMPLED}
    assert collector.spans == []


def test_events_of_one_batch_are_linked_and_the_engine_is_called_for_the_first(
    tracing: Tracing, collector: Collector
) -> None:
    other = SAMPLED.replace(b"4bf9", b"5bf9")
    bench = traced_bench(tracing, SAMPLED, other)
    callers: list[str | None] = []
    bench.engine.before = lambda reds: callers.append(CALLER.get())
    bench.run_to(2)
    tracing.close()
    engines = {span.trace_id.hex()[:4]: span for span in collector.spans if span.name == "engine"}
    assert set(engines) == {"4bf9", "5bf9"}
    if len(callers) == 1:  # both in one batch, as nearly always
        assert callers[0] is not None
        assert callers[0].split("-")[2] in {span.span_id.hex() for span in engines.values()}
        assert [link.trace_id.hex()[:4] for link in engines["4bf9"].links] == ["5bf9"]
    assert CALLER.get() is None


def test_an_engine_replica_works_in_its_callers_trace(collector: Collector) -> None:
    telemetry = TelemetrySettings(traces_endpoint=collector.endpoint)
    replica = EngineReplica(Settings(telemetry=telemetry), calls_at_once=1, linger_seconds=300.0)
    asyncio.run(replica.reconfigure(None, rank=cast(Any, None)))
    lite = load_manifest(SHIPPED_MODELS / "mst-lite")
    token = CALLER.set(SAMPLED.decode())
    try:
        ServeEngine(cast(Any, DirectHandle(replica)), lite.digest).infer(blank_views(lite.views))
    finally:
        CALLER.reset(token)
        replica.__del__()
    infer = collector.trace(TRACE)["infer"]
    assert infer.parent_span_id.hex() == PARENT
    assert collector.services == {"sluice-engine"}


class DirectHandle:
    """A Serve handle that calls the replica in this process."""

    def __init__(self, replica: EngineReplica) -> None:
        self.infer = self
        self._replica = replica

    def remote(self, *arguments: Any) -> "DirectHandle":
        self._answer = asyncio.run(self._replica.infer(*arguments))
        return self

    def result(self, *, timeout_s: float) -> Features:
        return self._answer


def test_a_decision_is_in_the_trace_of_its_event_and_its_record_goes_on_with_it(
    tracing: Tracing, collector: Collector
) -> None:
    bench = ReviewBench()
    traced, plain = review_item("traced"), review_item("plain")
    for each, headers in ((traced, (("traceparent", SAMPLED),)), (plain, ())):
        bench.topics.append([Output("images.review", each.model_dump_json().encode(), each.event_id.encode(), headers)])
    bench.projector.step()
    bench.desk = Desk(
        bench.settings,
        bench.topics,
        bench.redis,
        bench.catalogue,
        now=bench.clock,
        traces=DecisionTraces(tracing, bench.topics),
    )
    bench.sleep(60)
    for _ in range(2):
        bench.decide(bench.one("ann"), "approve")
    tracing.close()

    review = collector.trace(TRACE)["review"]
    assert review.parent_span_id.hex() == PARENT
    assert attributes(review)["sluice.review.outcome"] == "approve"
    assert "ann" not in str(attributes(review)), "traces name no people"
    written = bench.topics.read(dict.fromkeys(bench.topics.ends("images.decisions"), 0), 0).records
    assert len(written) == 2
    carried = {value for record in written for name, value in record.headers if name == "traceparent"}
    assert carried == {f"00-{TRACE}-{review.span_id.hex()}-01".encode()}


def test_a_collector_that_is_down_costs_spans_and_no_time(collector: Collector) -> None:
    collector.status = 500
    registry = CollectorRegistry()
    tracing = open_tracing(TelemetrySettings(traces_endpoint=collector.endpoint), "sluice-test", registry)
    assert tracing is not None
    traced_bench(tracing, SAMPLED).run_to(1)
    started = time.monotonic()
    tracing.close()
    assert time.monotonic() - started < 10
    assert registry.get_sample_value("sluice_spans_total", {"result": "sent"}) == 0
