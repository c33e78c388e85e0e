"""Engines of torch as `sluice build` puts them into a repository; how they are served is in test_engine_opening."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from tests.unit.trt_build.towers import write_model
from worker.cli.main import app


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_fleets_engines_of_torch_hold_the_typed_graphs_and_say_what_is_in_them(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", prompts=True)
    base = ("build", model, "--repository", tmp_path, "--backend", "torch")
    built = sluice(*base, "--compute-capability", "8.9,9.0")
    assert built.exit_code == 0, built.output
    engines = tmp_path / "tiny" / "1" / "engines"
    assert {folder.name for folder in engines.iterdir()} == {"torch-sm89-bf16", "torch-sm90-bf16"}
    report = json.loads((engines / "torch-sm90-bf16" / "build.json").read_text())
    graphs = [onnx.load(engines / "torch-sm90-bf16" / file["path"]).graph for file in report["record"]["files"]]
    assert [[value.name for value in graph.input] for graph in graphs] == [["whole"], ["tokens"]]
    products = {layer["precision"] for layer in report["layers"] if layer["kind"] in ("Conv", "Gemm")}
    assert "bfloat16" in products
    assert {layer["precision"] for layer in report["layers"] if layer["kind"] == "ReduceMean"} == {"float"}
    assert "torch.compile fuses these" in (engines / "torch-sm90-bf16" / "build.html").read_text()

    again = sluice(*base, "--compute-capability", "8.9")
    assert (again.exit_code, "kept" in again.stdout) == (0, True)
    other = sluice(*base, "--compute-capability", "8.9", "--batches", "1:8:16")
    assert other.exit_code == 1
    assert "profile was 1:16:64, now 1:8:16; use --rebuild" in other.stderr.replace("\n", " ")


def test_a_graph_that_torch_cannot_run_is_refused_when_it_is_built(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["whole"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Tanh", ["values"], ["coarse"]),
        ],
        "one",
        [info("whole", TensorProto.UINT8, ["n", 32, 32, 3])],
        [info("coarse", TensorProto.FLOAT, ["n", 32, 32, 3])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    model = write_model(tmp_path / "tiny", graph=data)
    refused = sluice("build", model, "--repository", tmp_path, "--backend", "torch")
    assert refused.exit_code == 1
    assert "does not support the operator Tanh" in refused.stderr
    assert not list(tmp_path.rglob("engine.json"))


def test_a_gpu_that_torch_does_not_see_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("trt_build.torch_build.has_gpu", lambda: True)
    refused = sluice("build", write_model(tmp_path / "tiny"), "--repository", tmp_path, "--backend", "torch")
    assert refused.exit_code == 1
    assert "sees no GPU here" in refused.stderr
    assert "--compute-capability 8.9,9.0" in refused.stderr
