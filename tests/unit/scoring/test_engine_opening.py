"""Which engine serves: by the settings, by what the repository has, by what the host can run."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from tests.unit.trt_build.towers import SIZE, write_model
from worker.cli.main import app
from worker.scoring import opening
from worker.scoring.engine import Engine
from worker.scoring.engine_record import EngineMismatch, EngineRecord
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository
from worker.scoring.stores import FolderStore, RepositoryError
from worker.scoring.tensorrt_binding import BindingMissing
from worker.scoring.torch_engine import TorchEngine
from worker.scoring.verification import Unverified
from worker.settings import Settings, SettingsError, load_settings


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def model(source: Path) -> Model:
    return load_model(str(source))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts differ; these tests are about one without a GPU."""
    monkeypatch.setattr(opening, "has_gpu", lambda: False)


def settings(source: Path, **engine: Any) -> Settings:
    return load_settings(
        None,
        {f"SLUICE_ENGINE__{name.upper()}": str(value) for name, value in engine.items()}
        | {"SLUICE_MODEL": str(source)},
    )


def sluice(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def build(
    source: Path, place: Path, precision: str = "fp32", *, backend: str = "openvino", verify: bool = True
) -> None:
    base = ("build", source, "--repository", place, "--backend", backend, "--precision", precision)
    sluice(*base, "--batches", "2:2:2")
    if verify:
        sluice("verify", source, "--repository", place, "--engine", f"{backend}-{precision}")


def features(engine: Engine) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    with closing(engine):
        return engine.infer({"whole": pixels})["coarse"]


def test_by_default_the_models_own_graph_runs_on_the_processors(source: Path, model: Model) -> None:
    engine = opening.open_engine(Settings(), model)
    assert isinstance(engine, OpenVinoEngine)
    assert np.isfinite(features(engine)).all()


def test_a_verified_engine_of_the_repository_is_what_runs(source: Path, model: Model, place: Path) -> None:
    build(source, place)
    [graph] = place.rglob("*.xml")
    with capture_logs() as logs, closing(opening.open_engine(settings(source, repository=place), model)) as engine:
        assert isinstance(engine, OpenVinoEngine)
    assert not [entry for entry in logs if entry["event"] == "engine_passed_over"]
    graph.unlink()
    with pytest.raises(RepositoryError, match=r"is missing.*--rebuild"):
        opening.open_engine(settings(source, repository=place, backend="openvino"), model)


def test_an_engine_that_never_passed_the_gate_is_refused_with_the_command_that_repairs_it(
    source: Path, model: Model, place: Path
) -> None:
    build(source, place, verify=False)
    with pytest.raises(Unverified) as caught:
        opening.open_engine(settings(source, repository=place, backend="openvino"), model)
    command = str(caught.value).partition("run sluice ")[2]
    sluice(*command.split())
    opening.open_engine(settings(source, repository=place, backend="openvino"), model).close()


def test_auto_passes_over_what_does_not_start_and_says_why(source: Path, model: Model, place: Path) -> None:
    build(source, place, verify=False)
    with capture_logs() as logs:
        engine = opening.open_engine(settings(source, repository=place), model)
    assert np.isfinite(features(engine)).all()
    [passed_over] = [entry for entry in logs if entry["event"] == "engine_passed_over"]
    assert passed_over["engine"] == "openvino-fp32"
    assert "run sluice verify" in passed_over["reason"]


def test_auto_needs_nothing_of_a_repository_that_is_empty(source: Path, model: Model, place: Path) -> None:
    with capture_logs() as logs:
        opening.open_engine(settings(source, repository=place), model).close()
    assert [entry["reason"] for entry in logs if entry["event"] == "engine_passed_over"] == [
        f"{place}/tiny/1: no such model; build its engine: sluice build {source} --repository {place}"
    ]


def test_an_engine_that_is_not_there_is_refused_with_those_that_are_and_the_command_that_makes_it(
    source: Path, model: Model, place: Path
) -> None:
    build(source, place)
    with pytest.raises(
        RepositoryError, match="no such engine \\(existing: openvino-fp32\\); make it: sluice "
    ) as caught:
        opening.open_engine(settings(source, repository=place, backend="openvino", precision="bf16"), model)
    command = str(caught.value).partition("make it: sluice ")[2]
    sluice(*command.split())
    assert "openvino-bf16" in {path.name for path in place.rglob("openvino-*")}


def test_another_model_under_the_same_version_is_refused(tmp_path: Path, source: Path, place: Path) -> None:
    build(source, place)
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(RepositoryError, match="is model sha256:"):
        opening.open_engine(settings(other, repository=place, backend="openvino"), load_model(str(other)))


def test_an_engine_of_another_model_is_refused_with_what_differs(source: Path, model: Model, place: Path) -> None:
    build(source, place)
    record = next(place.rglob("engine.json"))
    record.write_text(record.read_text().replace(model.manifest.digest, f"sha256:{'0' * 64}"))
    with pytest.raises(EngineMismatch, match=r"it is of model sha256:000.*sluice build .* --rebuild") as caught:
        opening.open_engine(settings(source, repository=place, backend="openvino"), model)
    sluice(*str(caught.value).partition("--rebuild: sluice ")[2].split())
    assert Repository(FolderStore(place)).versions()


def test_the_fastest_that_passed_is_taken(source: Path, model: Model, place: Path) -> None:
    for precision in ("fp32", "bf16"):
        build(source, place, precision, verify=False)
    sluice("verify", source, "--repository", place, "--engine", "openvino-fp32")
    engine = opening.open_engine(settings(source, repository=place, backend="openvino"), model)
    exact = features(OpenVinoEngine(model, precision="f32"))
    np.testing.assert_array_equal(features(engine), exact)


def test_torch_is_the_reference_in_float32_where_there_is_no_gpu(source: Path, model: Model) -> None:
    engine = opening.open_engine(settings(source, backend="torch"), model)
    assert isinstance(engine, TorchEngine)
    exact = features(OpenVinoEngine(model, precision="f32"))
    np.testing.assert_allclose(features(engine), exact, atol=1e-4 * np.abs(exact).max())


def test_a_gpu_that_torch_does_not_see_leaves_the_processors(
    source: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with capture_logs() as logs:
        engine = opening.open_engine(settings(source), model)
    assert isinstance(engine, OpenVinoEngine)
    engine.close()
    [passed_over] = [entry for entry in logs if entry["event"] == "engine_passed_over"]
    assert (passed_over["engine"], "sees no GPU" in passed_over["reason"]) == ("torch", True)


def test_processors_without_the_models_precision_say_that_scores_differ(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((source / "manifest.json").read_text())
    (source / "manifest.json").write_text(json.dumps(manifest | {"precision": "bf16"}))
    measured_in_bf16 = load_model(str(source))
    assert measured_in_bf16.manifest.precision == "bf16"
    monkeypatch.setattr("worker.scoring.openvino_graph.computes_bf16", lambda: False)
    with capture_logs() as logs:
        opening.open_engine(settings(source), measured_in_bf16).close()
    assert [entry["log_level"] for entry in logs if entry["event"] == "precision_differs"] == ["warning"]


@pytest.mark.parametrize(
    ("measured_in", "asked_for", "runs_in"),
    [(None, None, "f32"), (None, "bf16", "bf16"), ("bf16", None, "bf16"), ("bf16", "fp32", "f32")],
)
def test_a_model_serves_in_the_precision_it_was_measured_in_unless_another_is_asked_for(
    source: Path, monkeypatch: pytest.MonkeyPatch, measured_in: str | None, asked_for: str | None, runs_in: str
) -> None:
    manifest = json.loads((source / "manifest.json").read_text())
    (source / "manifest.json").write_text(json.dumps(manifest | {"precision": measured_in}))
    monkeypatch.setattr("worker.scoring.openvino_graph.computes_bf16", lambda: True)
    wanted = {"backend": "openvino", **({"precision": asked_for} if asked_for else {})}
    with capture_logs() as logs:
        opening.open_engine(settings(source, **wanted), load_model(str(source))).close()
    assert [entry["engine"] for entry in logs if entry["event"] == "engine_ready"] == [f"openvino-{runs_in}"]


def test_torch_that_is_not_installed_is_named_with_what_installs_it(
    source: Path, model: Model, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(source, place, backend="torch", verify=False)
    monkeypatch.setitem(sys.modules, "worker.scoring.torch_engine", None)
    for where in ({}, {"repository": place}):
        with pytest.raises(BindingMissing, match=r"torch engine does not load: .*pip install 'sluice\[torch\]'"):
            opening.open_engine(settings(source, backend="torch", **where), model)


def test_an_engine_of_torch_is_refused_until_it_is_compared_and_then_runs_compiled(
    source: Path, model: Model, place: Path
) -> None:
    build(source, place, backend="torch", verify=False)
    wanted = settings(source, repository=place, backend="torch")
    with pytest.raises(Unverified) as caught:
        opening.open_engine(wanted, model)
    sluice(*str(caught.value).partition("run sluice ")[2].split())
    pixels = {"whole": np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)}
    with (
        closing(opening.open_engine(wanted, model)) as engine,
        closing(OpenVinoEngine(model, precision="f32")) as exact,
    ):
        assert engine.max_batch == 2
        expected = exact.infer(pixels)["coarse"]
        np.testing.assert_allclose(engine.infer(pixels)["coarse"], expected, atol=1e-4 * np.abs(expected).max())


def test_an_engine_of_another_torch_is_refused_and_built_again_must_be_compared_again(
    source: Path, model: Model, place: Path
) -> None:
    build(source, place, backend="torch")
    record = next(place.rglob("engine.json"))
    version = json.loads(record.read_text())["backend_version"]
    record.write_text(record.read_text().replace(version, "2.6.0"))
    wanted = settings(source, repository=place, backend="torch")
    with pytest.raises(EngineMismatch, match=rf"built by torch 2\.6\.0, this is {version}") as caught:
        opening.open_engine(wanted, model)
    report = next(place.rglob("parity.json"))  # as if it had been compared with that torch
    report.write_text(report.read_text().replace(json.loads(report.read_text())["engine"], _digest(record)))
    sluice(*str(caught.value).partition("--rebuild: sluice ")[2].split())
    with pytest.raises(Unverified, match="was rebuilt since"):
        opening.open_engine(wanted, model)


def _digest(record: Path) -> str:
    return EngineRecord.model_validate_json(record.read_text()).digest


def test_auto_leaves_processors_to_openvino(source: Path, model: Model, place: Path) -> None:
    build(source, place, backend="torch")
    with closing(opening.open_engine(settings(source, repository=place), model)) as engine:
        assert isinstance(engine, OpenVinoEngine)


def test_on_a_gpu_only_its_own_engines_of_torch_serve(
    source: Path, model: Model, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(source, place, backend="torch")
    monkeypatch.setattr(opening, "has_gpu", lambda: True)
    wanted = settings(source, repository=place, backend="torch")
    with pytest.raises(RepositoryError, match="no such engine \\(existing: torch-fp32\\); make it: sluice build "):
        opening.open_engine(wanted, model)
    sluice("build", source, "--repository", place, "--backend", "torch", "--compute-capability", "8.9,9.0")
    monkeypatch.setattr(TorchEngine, "compute_capability", lambda: "9.0")
    with pytest.raises(Unverified, match="torch-sm90-bf16 was never compared"):
        opening.open_engine(wanted, model)
    monkeypatch.setattr(TorchEngine, "compute_capability", lambda: "8.0")
    with pytest.raises(EngineMismatch, match=r"built for compute capability 8\.9, this is 8\.0"):
        opening.open_engine(wanted, model)


def test_building_scoring_and_serving_on_openvino_never_load_torch_or_onnx(tmp_path: Path) -> None:
    """In a process of its own: this one has torch already."""
    program = (
        "import sys\n"
        "from worker.cli.main import app\n"
        "from worker.scoring.model import load_model\n"
        "from worker.settings import Settings\n"
        "from worker.wiring import build_embedded_worker, open_engine\n"
        "open_engine(Settings(), load_model('mst-lite')).close()\n"
        "app(['build', 'mst-lite', '--backend', 'openvino', '--repository', 'models'], standalone_mode=False)\n"
        f"app(['score', {str(samples())!r}], standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'onnx', 'ray'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def samples() -> Path:
    from worker.samples.sample import SAMPLE_IMAGES

    return sorted(SAMPLE_IMAGES.glob("*.jpg"))[0]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"backend": "tensorrt"}, "backend tensorrt needs engine.repository"),
        ({"backend": "torch", "threads": 2}, "threads is only for openvino"),
        ({"precision": "bf16"}, "precision needs a named backend"),
        ({"backend": "openvino", "precision": "fp16"}, "openvino does not compute in fp16"),
        ({"backend": "torch", "precision": "int8"}, "torch does not compute in int8"),
        ({"backend": "openvino", "precision": "int8"}, "int8 needs engine.repository"),
        ({"backend": "openvino", "precision": "fp8"}, "openvino does not compute in fp8"),
    ],
)
def test_settings_that_no_engine_could_follow_are_refused(source: Path, engine: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(source, **engine)


def test_a_repositorys_folder_counts_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text("engine: {repository: models}\n")
    assert load_settings(file, {}).engine.repository == str(tmp_path / "models")
    file.write_text("engine: {repository: 's3://bucket/models'}\n")
    assert load_settings(file, {}).engine.repository == "s3://bucket/models"
