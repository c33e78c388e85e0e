"""Every benchmark runs, in a setting so small that its figures mean nothing, and writes what people will read."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ops.benchmarks import (
    decode_benchmark,
    decoder_processes_benchmark,
    engines_benchmark,
    first_second_benchmark,
    latency_benchmark,
    stages_benchmark,
    sweep_benchmark,
)
from ops.benchmarks.latency_benchmark import arrivals
from ops.benchmarks.results import Options
from ops.benchmarks.sweep_benchmark import Cell, recommend
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(short=True, out=tmp_path)


def written(options: Options, name: str) -> Any:
    """The report, once the plot beside it is sound too."""
    assert options.out is not None
    plot = ElementTree.parse(options.out / f"{name}.svg").getroot()
    places = [float(value) for node in plot.iter() for key, value in node.items() if key in ("x", "y", "cx", "cy")]
    assert places
    assert all(math.isfinite(place) and place >= 0 for place in places)
    report = json.loads((options.out / f"{name}.json").read_text())
    assert report["short"] is True
    assert report["measured_on"]["processors"] >= 1
    return report


def test_stages_are_timed_from_the_event_to_the_verdict(options: Options) -> None:
    stages_benchmark.run(options)
    stages = {stage["name"]: stage for stage in written(options, "stages")["stages"]}
    assert next(iter(stages)) == "parse the event"
    assert list(stages)[-1] == "write verdict and item"
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1, abs=0.01)
    assert stages["engine"]["processor_ms"] > stages["policy"]["processor_ms"]


def test_engines_are_compared_with_torch(options: Options) -> None:
    engines_benchmark.run(options, ["mst-lite"])
    found = {one["engine"]: one for one in written(options, "engines")["models"]["mst-lite"]["engines"]}
    assert {"torch eager, fp32", "onnxruntime, fp32", "openvino, fp32", "openvino, int8"} <= set(found)
    assert found["torch eager, fp32"]["ratio"] == 1
    for name in ("onnxruntime, fp32", "openvino, fp32"):
        assert found[name]["largest_score_error"] < 1e-3
    assert all(one["images_per_second"] > 0 for one in found.values())


def in_a_process(name: str, *arguments: str | Path) -> None:
    """As `make bench` runs it, for those that start servers or Ray of their own."""
    command = [sys.executable, "-m", f"ops.benchmarks.{name}_benchmark", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_starting_is_measured_until_the_first_verdict(options: Options) -> None:
    first_second_benchmark.run(options)
    starts = {start["command"]: start for start in written(options, "first_second")["starts"]}
    assert list(starts) == ["--help", "score one image", "up --embedded, first verdict"]
    assert 0 < starts["--help"]["median_cpu_seconds"] < starts["score one image"]["median_cpu_seconds"]


def test_certificates_are_simulated(options: Options, tmp_path: Path) -> None:
    in_a_process("trust", "--short", "--out", tmp_path)
    report = written(options, "trust")
    assert all(row["sequence_ever_wrong"] <= 0.1 < row["wilson_ever_wrong"] for row in report["daily_looks"])
    assert [row["certified"] for row in report["certification"][:2]] == [1.0, 1.0]
    assert all(row["held"] >= 0.9 for row in report["one_look"])


def test_serve_applications_are_measured_beside_their_slowest_stage(options: Options, tmp_path: Path) -> None:
    in_a_process("serve", "--short", "--out", tmp_path)
    report = written(options, "serve")
    assert set(report["per_second"]) == {"decode alone", "engine alone", "Kafka + Ray Serve"}
    assert report["ratio"]["goal"] == 0.75


def test_pipelines_are_measured_beside_their_slowest_stage(options: Options, tmp_path: Path) -> None:
    in_a_process("pipeline", "--short", "--out", tmp_path)
    report = written(options, "pipeline")
    assert {"decode alone", "engine alone", "embedded", "kafka"} <= set(report["per_second"])
    assert all(rate > 0 for rate in report["per_second"].values())
    assert len(report["ratios"]) == 2


def test_records_from_the_cache_are_measured_by_both_kafka_clients(options: Options, tmp_path: Path) -> None:
    in_a_process("clients", "--short", "--out", tmp_path)
    report = written(options, "clients")
    clients = ("kafka-python", "librdkafka")
    kinds = [f"{kind} {client}" for kind in ("bare", "Sluice with") for client in clients]
    assert all(report[kind]["per_second"] > 0 for kind in kinds)
    assert report["bare kafka-python"]["rate_ratio"] == 1.0


def test_decoding_in_a_process_is_measured_beside_a_thread(options: Options) -> None:
    decoder_processes_benchmark.run(options)
    report = written(options, "decoder_processes")
    assert all(cost["process_ms"] > 0 for cost in report["costs"])
    assert report["pipeline"]["ratio"].keys() == {"off", "auto", "all"}


def test_decoding_is_measured_beside_pillow(options: Options) -> None:
    decode_benchmark.run(options, SAMPLE_IMAGES)
    assert len(written(options, "decode")["results"]) >= 4


def test_the_desk_is_measured_with_reviewers_at_work(options: Options, tmp_path: Path) -> None:
    in_a_process("desk", "--short", "--out", tmp_path)
    report = written(options, "desk")
    assert report["decisions"] == report["reviewers"] * report["seconds"]
    assert 0 < report["milliseconds"]["decision"]["p50"] <= report["milliseconds"]["decision"]["p95"]


def test_the_desk_is_measured_with_many_items(tmp_path: Path, options: Options) -> None:
    in_a_process("desk_scale", "--items", "300", "--short", "--out", tmp_path)
    report = written(options, "desk_scale")
    assert report["items"] == 300
    assert report["redis_bytes_an_item"] > 0
    assert report["fill_a_flushed_redis"]["items_a_processor_second"] > 0
    assert set(report["goals"]["milliseconds_p95"]) <= {"lease", "decide", "search"}


def test_the_sweep_recommends_settings_that_can_be_set(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_benchmark.run(options, Settings())
    report = written(options, "sweep")
    assert len(report["cells"]) == 4
    Settings.model_validate({"intake": report["recommended"]})
    assert f"batch_size: {report['recommended']['batch_size']}" in capsys.readouterr().out


def test_the_sweep_recommends_the_fewest_images_under_way_that_are_as_fast() -> None:
    def cell(size: int, flight: int, speed: float) -> Cell:
        return Cell(size, flight, images_per_second=speed, processor_ms=1, batch_ms=1)

    cells = [cell(1, 1, 50), cell(4, 2, 98), cell(8, 1, 97.5), cell(64, 8, 100)]
    assert recommend(cells) == cells[1]


def test_latency_is_measured_at_each_load_and_counts_every_event(options: Options) -> None:
    latency_benchmark.run(options)
    report = written(options, "latency")
    [load] = report["loads"]
    assert load["events"] == round(report["capacity_per_second"] * load["share_of_capacity"])
    assert 0 < load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"] <= load["largest_ms"]


def test_arrivals_come_at_the_rate_that_was_asked_for_and_bunch_as_a_poisson_process_does() -> None:
    moments = np.array(arrivals(50, 400, np.random.default_rng(0)))
    gaps = np.diff(moments)
    assert len(moments) / moments[-1] == pytest.approx(50, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential distribution both are 1 / rate
