"""The repository and its gate as a user meets them: CPU engines compared for real, and models kept in a real S3."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ops.dev.servers import S3Server
from tests.unit.trt_build.towers import write_model
from worker.cli.main import app
from worker.samples.sample import load_samples
from worker.scoring.compiled import open_compiled
from worker.scoring.engine_record import Target
from worker.scoring.model import find_model, load_model
from worker.scoring.openvino_graph import computes_bf16
from worker.scoring.promotion import Promoter
from worker.scoring.repository import Repository, Version
from worker.scoring.s3_store import S3Store
from worker.scoring.stores import FolderStore
from worker.scoring.verification import Unverified
from worker.settings import S3Settings

pytestmark = pytest.mark.integration


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples, small, so that nothing takes long: 20 images with their degraded copies."""
    folder = tmp_path_factory.mktemp("golden")
    for sample in load_samples()[:4]:
        with Image.open(sample.path) as image:
            image.convert("RGB").resize((256, 256)).save(folder / f"{sample.path.stem}.png")
    return folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as one that was measured in float32, which every processor computes in."""
    folder = tmp_path_factory.mktemp("exact")
    shutil.copytree(find_model("mst-lite").parent, folder, dirs_exist_ok=True)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"name": "exact", "precision": None}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_cpu_engines_are_built_compared_and_only_then_opened(tmp_path: Path, golden: Path, exact: Path) -> None:
    place = tmp_path / "models"
    for precision in ("fp32", "int8"):
        built = sluice(
            "build", exact, "--repository", place, "--backend", "openvino", "--precision", precision,
            "--calibration", golden,
        )  # fmt: skip
        assert built.exit_code == 0, built.output
    layers = json.loads(next(place.rglob("openvino-int8/build.json")).read_text())["layers"]
    assert {"Convolution"} <= {layer["kind"] for layer in layers}
    assert any(layer["precision"] in ("u8", "i8") for layer in layers if layer["kind"] == "Convolution")
    assert "layers of the engine" in next(place.rglob("openvino-fp32/build.html")).read_text()
    model = load_model(str(exact))
    version = Version(model.manifest.name, model.manifest.version)
    repository = Repository(FolderStore(place))
    plain, int8 = (Target(backend="openvino", precision=precision) for precision in ("fp32", "int8"))
    with pytest.raises(Unverified, match="run sluice verify"):
        open_compiled(repository, version, plain, model)

    result = sluice("verify", exact, "--repository", place, "--golden", golden, "--reference", "openvino")
    assert result.exit_code == 1
    assert "openvino-int8 does not match the reference" in result.stderr.replace("\n", " ")
    assert "openvino-fp32 does not" not in result.stderr
    reports = {
        target.name: json.loads(repository.read_report(version, target, "parity.json") or "")
        for target in (plain, int8)
    }
    assert reports["openvino-fp32"]["passed"]
    assert not reports["openvino-int8"]["passed"]
    assert len(reports["openvino-int8"]["images"]) == 20
    worst = max(reports["openvino-int8"]["images"], key=lambda image: abs(image["engine"] - image["reference"]))
    page = repository.read_report(version, int8, "parity.html") or ""
    assert worst["name"] in page
    if abs(worst["engine"] - worst["reference"]) > 0.1:
        assert worst["name"] in result.stdout

    open_compiled(repository, version, plain, model).close()
    with pytest.raises(Unverified, match="failed the parity gate"):
        open_compiled(repository, version, int8, model)
    rebuilt = sluice("build", exact, "--repository", place, "--backend", "openvino", "--precision", "int8")
    assert "kept" in rebuilt.stdout


@pytest.mark.skipif(not computes_bf16(), reason="these processors do not compute in bfloat16")
def test_the_shipped_model_is_built_verified_and_served_as_it_was_measured(tmp_path: Path, golden: Path) -> None:
    """What the README tells people to do, from build to scores."""
    place = tmp_path / "models"
    assert sluice("build", "mst-lite", "--repository", place, "--backend", "openvino").exit_code == 0
    config = tmp_path / "sluice.yaml"
    config.write_text("engine: {backend: openvino, repository: models}\n")
    refused = sluice("score", golden, "--config", config)
    assert refused.exit_code == 1
    assert "openvino-bf16 was never compared with the reference; run sluice verify" in refused.stderr
    # Of 20 images two neighbours that change places are a correlation below 0.999, which torch's rounding may do.
    verified = sluice("verify", "mst-lite", "--repository", place, "--golden", golden, "--reference", "openvino")
    assert verified.exit_code == 0, verified.output
    assert "openvino-bf16 beside openvino bf16" in verified.stdout
    scored = sluice("score", golden, "--config", config, "--output", tmp_path / "scores.jsonl")
    assert scored.exit_code == 0, scored.output
    by_engine, by_model = (
        [json.loads(line)["quality"] for line in file.read_text().splitlines()]
        for file in (tmp_path / "scores.jsonl", _scored_by_default(golden, tmp_path / "plain.jsonl"))
    )
    assert by_engine == pytest.approx(by_model, abs=0.01)


def _scored_by_default(images: Path, file: Path) -> Path:
    assert sluice("score", images, "--output", file).exit_code == 0
    return file


def test_a_reference_that_these_processors_cannot_compute_is_refused_with_what_can(
    tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model")
    manifest = json.loads((model / "manifest.json").read_text()) | {"precision": "bf16"}
    (model / "manifest.json").write_text(json.dumps(manifest))
    base = (model, "--repository", tmp_path / "models")
    for precision in ("bf16", "fp32"):
        assert sluice("build", *base, "--backend", "openvino", "--precision", precision).exit_code == 0
    monkeypatch.setattr("worker.cli.verify.computes_bf16", lambda: False)
    refused = sluice("verify", *base, "--golden", golden, "--reference", "openvino")
    assert refused.exit_code == 2
    assert "--reference torch computes it" in refused.stderr.replace("\n", " ")
    by_torch = sluice("verify", *base, "--golden", golden)
    assert by_torch.exit_code == 1
    assert "openvino-bf16 was not compared: these CPUs" in by_torch.stderr.replace("\n", " ")
    assert "openvino-fp32 beside torch bf16" in by_torch.stdout


def test_verify_says_what_there_is_not(tmp_path: Path) -> None:
    place = tmp_path / "models"
    empty = sluice("verify", "mst-lite", "--repository", place)
    assert (empty.exit_code, "add it with sluice build" in empty.stderr.replace("\n", " ")) == (2, True)
    sluice("build", "mst-lite", "--repository", place, "--backend", "openvino", "--precision", "fp32")
    unknown = sluice("verify", "mst-lite", "--repository", place, "--engine", "openvino-fp8")
    assert unknown.exit_code == 2
    assert "existing engines: openvino-fp32" in unknown.stderr.replace("\n", " ")


def test_a_model_in_s3_is_published_found_cached_and_loaded(
    s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = S3Settings(endpoint_url=s3_server.endpoint, region=s3_server.region, addressing_style="path")
    store = S3Store(bucket, "models", settings)
    repository = Repository(store)
    for version in ("0.9.0", "0.10.0"):
        repository.publish(write_model(tmp_path / version, version=version, seed=len(version)))
    assert [entry.version for entry in repository.versions()] == ["0.9.0", "0.10.0"]

    Promoter(store).promote(Version("tiny", "0.10.0"), by="ada")
    serving = load_model(f"s3://{bucket}/models/tiny", settings)
    assert serving.manifest.version == "0.10.0"
    assert load_model(f"s3://{bucket}/models/tiny/0.9.0", settings).manifest.version == "0.9.0"

    copies = list((tmp_path / "cache").rglob(serving.manifest.graph.path))
    assert len(copies) == 2
    for copy in copies:
        copy.write_bytes(b"damaged in the cache")
    assert load_model(f"s3://{bucket}/models/tiny", settings).manifest == serving.manifest
    assert load_model(f"s3://{bucket}/models/tiny/0.9.0", settings).manifest.version == "0.9.0"
    for name in store.names():
        store.delete(name)
    assert store.names() == []


def test_engines_are_built_into_s3_from_the_command_line(
    s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    config = tmp_path / "sluice.yaml"
    config.write_text(
        f"s3: {{endpoint_url: '{s3_server.endpoint}', region: {s3_server.region}, addressing_style: path}}\n"
    )
    model = write_model(tmp_path / "model")
    base = (model, "--repository", f"s3://{bucket}/models", "--config", config)
    built = sluice("build", *base, "--backend", "openvino", "--precision", "fp32")
    assert built.exit_code == 0, built.output
    verified = sluice("verify", *base, "--reference", "torch")
    assert verified.exit_code == 0, verified.output
    settings = S3Settings(endpoint_url=s3_server.endpoint, region=s3_server.region, addressing_style="path")
    store = S3Store(bucket, "models", settings)
    assert {name.rpartition("/")[2] for name in store.names("tiny/1/engines/openvino-fp32/")} > {
        "engine.json",
        "parity.html",
        "parity.json",
    }
    for name in store.names():
        store.delete(name)
