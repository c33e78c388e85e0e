"""Real engines, compiled by TensorRT for RTX on this machine, which needs no GPU for that."""

import json
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.progress import Progress, TaskID
from typer.testing import CliRunner, Result

from tests.unit.trt_build.towers import SIZE, convolution_towers, write_model
from trt_build.compile import BuildCancelled, BuildOptions, Compiled, Compiler
from trt_build.errors import BuildError
from worker.cli.main import app
from worker.samples.sample import load_samples
from worker.scoring.engine_record import BatchProfile
from worker.scoring.graph_precision import Precision, prepare_graph
from worker.scoring.model import load_model
from worker.scoring.onnx_file import GraphError
from worker.scoring.opening import has_gpu

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has wheels for Linux and Windows on x86-64 only")

pytestmark = pytest.mark.integration

CAPABILITIES = ["7.5", "8.0", "8.6", "8.9", "12.0"]
PROFILE = BatchProfile(smallest=1, best=16, largest=64)


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler("tensorrt-rtx")


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def check_header(compiled: Compiled) -> None:
    """An engine begins with its magic, its own size and the version that made it, as 1.7.1 writes it."""
    engine = compiled.engine
    assert engine[:4] == b"vtrt"
    size = int.from_bytes(engine[16:24], "little")
    assert size == len(engine)
    major, minor, patch = (int(part) for part in compiled.version.split(".")[:3])
    assert (engine[24], engine[25], engine[26]) == (major, minor, patch)


@pytest.fixture(scope="module")
def shipped() -> dict[Precision, bytes]:
    graph = load_model("mst-lite").graph
    return {precision: prepare_graph(graph, precision) for precision in ("fp16", "bf16", "fp32")}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_shipped_model_compiles_for_every_gpu_in_half_precision(
    compiler: Compiler, shipped: dict[Precision, bytes], capability: str
) -> None:
    built = compiler.compile(shipped["fp16"], BuildOptions(PROFILE, capability))
    check_header(built)
    weights = len(load_model("mst-lite").graph) / 2
    assert weights < len(built.engine) < 3 * weights
    assert {layer.kind for layer in built.layers} >= {"convolution", "cast", "reduce"}
    kinds = Counter((layer.kind, layer.precision) for layer in built.layers)
    assert {precision for kind, precision in kinds if kind == "convolution"} == {"half"}
    assert {precision for kind, precision in kinds if kind == "reduce"} == {"float"}


@pytest.mark.parametrize(("precision", "name"), [("bf16", "bf16"), ("fp32", "float")])
def test_the_shipped_model_compiles_in_other_precisions(
    compiler: Compiler, shipped: dict[Precision, bytes], precision: Precision, name: str
) -> None:
    built = compiler.compile(shipped[precision], BuildOptions(PROFILE, "8.9"))
    check_header(built)
    assert {layer.precision for layer in built.layers if layer.kind == "convolution"} == {name}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_a_turing_gpu_cannot_compute_is_refused_with_tensorrts_words(
    compiler: Compiler, shipped: dict[Precision, bytes], precision: Precision
) -> None:
    with pytest.raises(BuildError, match=r"built no engine: .*(sm75|SM75)"):
        compiler.compile(shipped[precision], BuildOptions(PROFILE, "7.5"))


def test_a_graph_quantised_to_signed_int8_keeps_its_precision_and_one_to_uint8_is_refused(
    compiler: Compiler, tmp_path: Path
) -> None:
    from onnxruntime import quantization  # slow to load, and for this test only

    class Pixels(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            random = np.random.default_rng(0)
            self._batches = iter([{"whole": random.integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)} for _ in range(2)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    (tmp_path / "towers.onnx").write_bytes(convolution_towers())

    def quantised(kind: quantization.QuantType) -> bytes:
        quantization.quantize_static(
            tmp_path / "towers.onnx", tmp_path / "quantised.onnx", Pixels(), activation_type=kind,
            weight_type=quantization.QuantType.QInt8, op_types_to_quantize=["Conv"],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )  # fmt: skip
        return (tmp_path / "quantised.onnx").read_bytes()

    built = compiler.compile(
        prepare_graph(quantised(quantization.QuantType.QInt8), "fp32"), BuildOptions(PROFILE, "8.9")
    )
    check_header(built)
    assert ("quantize", "int8") in {(layer.kind, layer.precision) for layer in built.layers}
    with pytest.raises(GraphError, match="quantise the graph to signed, symmetric int8"):
        prepare_graph(quantised(quantization.QuantType.QUInt8), "fp32")


def test_engines_for_different_gpus_and_profiles_differ(compiler: Compiler, shipped: dict[Precision, bytes]) -> None:
    engines = [
        compiler.compile(
            shipped["fp16"], BuildOptions(BatchProfile(smallest=1, best=1, largest=largest), capability)
        ).engine
        for capability, largest in (("8.9", 4), ("8.9", 64), ("12.0", 4))
    ]
    assert len({bytes(engine) for engine in engines}) == 3


def test_a_gpu_that_rtx_has_no_engine_for_is_refused_with_those_it_has(
    compiler: Compiler, shipped: dict[Precision, bytes]
) -> None:
    with pytest.raises(
        BuildError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0.*not for 9\.0; build it with --backend tensorrt"
    ):
        compiler.compile(shipped["fp16"], BuildOptions(PROFILE, "9.0"))


def test_progress_is_reported_and_a_build_can_be_stopped(compiler: Compiler, shipped: dict[Precision, bytes]) -> None:
    seen: list[str] = []

    def watch(phase: str, done: int, steps: int) -> bool:
        assert 0 <= done <= max(steps, done)
        seen.append(phase)
        return True

    compiler.compile(shipped["fp16"], BuildOptions(PROFILE, "8.9"), report=watch)
    assert "Building engine" in seen
    with pytest.raises(BuildCancelled):
        compiler.compile(shipped["fp16"], BuildOptions(PROFILE, "8.9"), report=lambda *_: False)


def vit_b_32(layers: int = 12, width: int = 768, heads: int = 12, patch: int = 32) -> bytes:
    """An image tower of CLIP's ViT-B/32 in all its size, with random weights: uint8 [batch, 224, 224, 3] → 512."""
    random = np.random.default_rng(0)
    weights: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    tokens = (224 // patch) ** 2

    def weight(*shape: int) -> str:
        name = f"w{len(weights)}"
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(*values: int) -> str:
        name = f"i{len(weights)}"
        weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator}{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def linear(x: str, size_in: int, size_out: int) -> str:
        return add("Add", add("MatMul", x, weight(size_in, size_out)), weight(size_out))

    def norm(x: str) -> str:
        return add("LayerNormalization", x, weight(width), weight(width))

    def split(x: str) -> str:
        return add("Transpose", add("Reshape", x, integers(0, -1, heads, width // heads)), perm=[0, 2, 1, 3])

    x = add("Cast", add("Transpose", "image", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = add("Conv", x, weight(width, 3, patch, patch), strides=[patch, patch])
    x = add("Transpose", add("Reshape", x, integers(0, width, tokens)), perm=[0, 2, 1])
    x = norm(add("Add", x, weight(tokens, width)))
    for _ in range(layers):
        normed = norm(x)
        queries, keys, values = (split(linear(normed, width, width)) for _ in range(3))
        attention = add("Softmax", add("MatMul", queries, add("Transpose", keys, perm=[0, 1, 3, 2])))
        mixed = add("Transpose", add("MatMul", attention, values), perm=[0, 2, 1, 3])
        x = add("Add", x, linear(add("Reshape", mixed, integers(0, -1, width)), width, width))
        hidden = linear(norm(x), width, 4 * width)
        x = add("Add", x, linear(add("Mul", hidden, add("Sigmoid", hidden)), 4 * width, width))
    x = norm(add("ReduceMean", x, integers(1), keepdims=0))
    nodes.append(helper.make_node("MatMul", [x, weight(width, 512)], ["coarse"]))
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 224, 224, 3])],
        [helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["batch", 512])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture(scope="module")
def clip_sized() -> bytes:
    return prepare_graph(vit_b_32(), "fp16")


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.9", "12.0"])
def test_a_tower_of_clips_size_compiles_for_gpus_of_all_kinds(
    compiler: Compiler, clip_sized: bytes, capability: str
) -> None:
    built = compiler.compile(clip_sized, BuildOptions(PROFILE, capability))
    check_header(built)
    assert 150e6 < len(clip_sized) < 200e6
    assert 0.95 * len(clip_sized) < len(built.engine) < 1.5 * len(clip_sized)
    precisions = {layer.precision for layer in built.layers if layer.kind == "matrix_multiply"}
    assert precisions == {"half"}
    assert {layer.precision for layer in built.layers if layer.kind == "normalization"} == {"float"}


@pytest.mark.timeout(900)  # torch takes a while to export it where others work too
def test_a_text_tower_of_clips_size_compiles_in_half_precision(compiler: Compiler) -> None:
    pytest.importorskip("open_clip")
    from worker.model.clip.export_prompt import export_text
    from worker.model.clip.towers import Encoder, build_clip, text_tower

    name = "ViT-B-32-quickgelu"
    graph = prepare_graph(export_text(text_tower(build_clip(Encoder(name, None)), name), 77), "fp16")
    built = compiler.compile(graph, BuildOptions(PROFILE, "8.9"))
    check_header(built)
    assert 170e6 < len(graph) < 190e6  # the words' embeddings stay as they are, 101 MB
    assert 0.95 * len(graph) < len(built.engine) < 1.5 * len(graph)
    assert {layer.precision for layer in built.layers if layer.kind == "matrix_multiply"} == {"half"}


def test_a_fleets_engines_are_built_kept_refused_and_rebuilt_from_the_command_line(tmp_path: Path) -> None:
    place = tmp_path / "models"
    base = ("build", "mst-lite", "--repository", place, "--precision", "fp16")
    first = sluice(*base, "--compute-capability", "8.9,9.0", "--compute-capability", "12.0", "--batches", "1:4:8")
    assert first.exit_code == 1
    assert "tensorrt-rtx-sm90-fp16: tensorrt-rtx" in first.stderr
    turing = sluice(*base[:-1], "bf16", "--compute-capability", "7.5")
    assert turing.exit_code == 1
    assert "it builds in fp16 only: --precision fp16" in turing.stderr.replace("\n", " ")
    [version] = (place / "mst-lite").iterdir()
    folders = {folder.name: folder for folder in (version / "engines").iterdir()}
    assert set(folders) == {"tensorrt-rtx-sm89-fp16", "tensorrt-rtx-sm120-fp16"}

    report = json.loads((folders["tensorrt-rtx-sm89-fp16"] / "build.json").read_text())
    assert report["schema"] == "sluice.build-report/1"
    [file] = report["record"]["files"]
    engine = folders["tensorrt-rtx-sm89-fp16"] / file["path"]
    assert engine.stat().st_size == report["record"]["bytes"]
    assert report["record"]["profile"] == {"smallest": 1, "best": 4, "largest": 8}
    assert report["layers_of"] in ("network", "engine")
    assert len(report["layers"]) > 0
    page = (folders["tensorrt-rtx-sm89-fp16"] / "build.html").read_text()
    assert "tensorrt-rtx-sm89-fp16" in page
    assert not re.search(r"https?://|<script", page)

    made = engine.stat().st_mtime_ns
    again = sluice(*base, "--compute-capability", "8.9", "--batches", "1:4:8")
    assert (again.exit_code, engine.stat().st_mtime_ns) == (0, made)
    assert "kept" in again.stdout

    other = sluice(*base, "--compute-capability", "8.9", "--batches", "1:8:16")
    assert other.exit_code == 1
    assert "profile was 1:4:8, now 1:8:16; use --rebuild" in other.stderr.replace("\n", " ")

    record = folders["tensorrt-rtx-sm89-fp16"] / "engine.json"
    older = json.loads(record.read_text()) | {"backend_version": "1.0.0"}
    record.write_text(json.dumps(older))
    stale = sluice(*base, "--compute-capability", "8.9", "--batches", "1:4:8")
    assert stale.exit_code == 1
    assert "it was built by tensorrt-rtx 1.0.0, this is" in stale.stderr

    rebuilt = sluice(*base, "--compute-capability", "8.9", "--batches", "1:8:16", "--rebuild")
    assert rebuilt.exit_code == 0
    assert json.loads(record.read_text())["profile"]["largest"] == 16

    next(folders["tensorrt-rtx-sm120-fp16"].glob("*.engine")).write_bytes(b"damaged")
    healed = sluice(*base, "--compute-capability", "12.0", "--batches", "1:4:8")
    assert healed.exit_code == 0
    assert "built" in healed.stdout


def test_quantised_engines_are_built_from_the_model_as_it_is_for_the_gpus_that_compute_so(
    tmp_path: Path, few_images: Path
) -> None:
    place = tmp_path / "models"
    base = ("build", write_model(tmp_path / "tiny"), "--repository", place, "--calibration", few_images)
    for precision in ("int8", "fp8"):
        built = sluice(*base, "--precision", precision, "--compute-capability", "8.0,8.9,12.0")
        assert built.exit_code == (precision == "fp8"), built.output
        if precision == "fp8":
            assert "tensorrt-rtx-sm80-fp8" in built.stderr
            assert "fp8 needs compute capability 8.9 or later: --precision int8" in built.stderr
        for folder in ("tensorrt-rtx-sm89", "tensorrt-rtx-sm120"):
            [file] = place.rglob(f"{folder}-{precision}/build.json")
            layers = json.loads(file.read_text())["layers"]
            assert ("quantize", precision) in {(layer["kind"], layer["precision"]) for layer in layers}
            assert {layer["precision"] for layer in layers if layer["kind"] == "convolution"} == {"half"}
    assert not list(place.rglob("tensorrt-rtx-sm80-fp8"))
    kept = sluice(*base, "--precision", "fp8", "--compute-capability", "8.9")
    assert (kept.exit_code, "kept" in kept.stdout) == (0, True)


@pytest.fixture
def few_images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for sample in load_samples()[:2]:
        shutil.copy(sample.path, folder)
    return folder


def test_a_damaged_record_stops_no_other_build_and_is_mended_by_a_rebuild(tmp_path: Path) -> None:
    place = tmp_path / "models"
    base = ("build", write_model(tmp_path / "tiny"), "--repository", place, "--compute-capability", "8.6,8.9,12.0")
    assert sluice(*base).exit_code == 0
    record = next(place.rglob("tensorrt-rtx-sm86-fp16/engine.json"))
    record.write_bytes(record.read_bytes()[:100])
    next(place.rglob("tensorrt-rtx-sm89-fp16/*.engine")).unlink()

    again = sluice(*base)
    assert again.exit_code == 1
    assert [line.split()[3] for line in again.stdout.splitlines() if "tensorrt-rtx-sm" in line] == [
        "failed", "built", "kept",
    ]  # fmt: skip
    assert "tensorrt-rtx-sm86-fp16/engine.json is damaged: Invalid JSON" in again.stderr
    assert "build it again with --rebuild" in again.stderr
    listed = sluice("model", "list", "--repository", place)
    assert listed.exit_code == 1
    assert "tensorrt-rtx-sm120-fp16" in listed.stdout
    assert "tensorrt-rtx-sm86-fp16/engine.json is damaged" in listed.stderr
    compared = sluice("verify", base[1], "--repository", place)
    assert "tensorrt-rtx-sm86-fp16/engine.json is damaged" in compared.stderr
    assert "tensorrt-rtx-sm120-fp16 cannot run here" in compared.stderr

    assert sluice(*base, "--rebuild").exit_code == 0
    assert json.loads(record.read_text())["schema"] == "sluice.engine/1"


def test_ctrl_c_stops_a_fleets_builds_and_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In TensorRT's callback, where Python meets the signal while an engine is built; it would swallow an exception."""
    started = []

    class Pressed(Progress):
        def add_task(self, *arguments: Any, **fields: Any) -> TaskID:
            started.append(fields["engine"])
            if len(started) == 2:
                signal.raise_signal(signal.SIGINT)
            return super().add_task(*arguments, **fields)

    monkeypatch.setattr("worker.cli.build.Progress", Pressed)
    before = signal.getsignal(signal.SIGINT)
    stopped = sluice(
        "build", write_model(tmp_path / "tiny"), "--repository", tmp_path / "models",
        "--compute-capability", "8.9,8.6,8.0",
    )  # fmt: skip
    assert stopped.exit_code == 1
    assert "the build was cancelled; what was finished before is kept" in stopped.stderr.replace("\n", " ")
    assert started == ["tensorrt-rtx-sm89-fp16", "tensorrt-rtx-sm86-fp16"]
    assert [record.parent.name for record in tmp_path.rglob("engine.json")] == started[:1]
    assert signal.getsignal(signal.SIGINT) == before


def test_an_engine_has_the_precision_that_its_model_was_measured_in_unless_told_otherwise(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    for precision, name in ((None, "fp16"), ("bf16", "bf16")):
        manifest = json.loads((model / "manifest.json").read_text())
        manifest |= {"precision": precision, "version": name}
        (model / "manifest.json").write_text(json.dumps(manifest))
        built = sluice("build", model, "--repository", tmp_path / "models", "--compute-capability", "8.9")
        assert built.exit_code == 0, built.output
        [engine] = (tmp_path / "models" / "tiny" / name / "engines").iterdir()
        assert engine.name == f"tensorrt-rtx-sm89-{name}"


def test_a_model_that_judges_prompts_gets_its_text_tower_compiled_beside_the_others(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", prompts=True)
    built = sluice("build", model, "--repository", tmp_path / "models", "--compute-capability", "8.9,12.0")
    assert built.exit_code == 0, built.output
    for folder in (tmp_path / "models" / "tiny" / "1" / "engines").iterdir():
        report = json.loads((folder / "build.json").read_text())
        towers, text = report["record"]["files"]
        assert towers["sha256"] != text["sha256"]
        assert sum((folder / file["path"]).stat().st_size for file in (towers, text)) == report["record"]["bytes"]
        kinds = {layer["kind"] for layer in report["layers"]}
        assert {"convolution", "gather", "normalization"} <= kinds


def test_an_engine_that_cannot_run_here_is_never_verified_by_mistake(tmp_path: Path) -> None:
    place = tmp_path / "models"
    built = sluice("build", "mst-lite", "--repository", place, "--compute-capability", "7.5", "--precision", "fp16")
    assert built.exit_code == 0, built.output
    result = sluice("verify", "mst-lite", "--repository", place)
    assert result.exit_code == 1
    assert "tensorrt-rtx-sm75-fp16" in result.stderr
    assert not list(place.rglob("parity.json"))


@pytest.mark.parametrize("options", [("--version-compatible",), ("--hardware-compatibility", "ampere_plus")])
def test_what_rtx_engines_cannot_be_is_refused_in_words(tmp_path: Path, options: tuple[str, ...]) -> None:
    base = ("build", write_model(tmp_path / "tiny"), "--repository", tmp_path / "models")
    refused = sluice(*base, "--compute-capability", "8.9", *options)
    assert refused.exit_code == 1
    assert "tensorrt-rtx has no engines for later versions or other GPUs" in refused.stderr.replace("\n", " ")
    assert not list((tmp_path / "models").rglob("engine.json"))


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here, which is then built for")
def test_without_a_gpu_the_fleets_gpus_must_be_named(tmp_path: Path) -> None:
    refused = sluice("build", write_model(tmp_path / "tiny"), "--repository", tmp_path / "models")
    assert refused.exit_code == 1
    assert "name the GPUs to build for: --compute-capability 8.9,12.0" in refused.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compute-capability", "sm89"), "write it as NVIDIA does, 8.9 or 12.0"),
        (("--batches", "8:4:1"), "give MIN:BEST:MAX, rising numbers"),
        (("--batches", "many"), "give MIN:BEST:MAX, rising numbers"),
        (("--backend", "openvino", "--compute-capability", "8.9"), "openvino builds for CPUs"),
        (("--backend", "openvino", "--precision", "fp16"), "leave --precision out for bf16"),
        (("--backend", "openvino", "--precision", "fp8"), "leave --precision out for bf16"),
        (("--backend", "torch", "--precision", "int8"), "torch computes in bf16 or fp32"),
    ],
)
def test_options_without_sense_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = sluice("build", "mst-lite", "--repository", tmp_path / "models", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "models").exists()
