"""What a model folder must be, and what is said when it is not."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_info

from worker.scoring.manifest import ManifestError, load_manifest
from worker.scoring.model import SHIPPED_MODELS, find_model, load_model

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(SHIPPED_MODELS / "mst-lite", tmp_path / "model"))


def edit(folder: Path, change: Edit) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def edit_heads(folder: Path, change: Edit) -> None:
    """Changes the tensors and writes the new digest, as a careless exporter would."""
    file = folder / "heads.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    edit(folder, lambda manifest: manifest["heads"].update(sha256=sha256(file.read_bytes()).hexdigest()))


def test_the_shipped_model_loads_by_name_and_by_path(folder: Path) -> None:
    by_name = load_model("mst-lite")
    assert by_name.manifest.name == "mst-lite"
    assert load_model(str(folder)).manifest.digest == by_name.manifest.digest
    assert load_model(str(folder / "manifest.json")).manifest.digest == by_name.manifest.digest


def test_the_digest_follows_every_part_of_the_manifest(folder: Path) -> None:
    before = load_manifest(folder).digest
    edit(folder, lambda manifest: manifest.update(version="9"))
    after = load_manifest(folder).digest
    assert before != after
    assert before.startswith("sha256:")
    assert len(before) == 71


def test_the_digest_does_not_follow_the_layout_of_the_file(folder: Path) -> None:
    before = load_manifest(folder).digest
    edit(folder, lambda _: None)
    assert load_manifest(folder).digest == before


def test_an_unknown_name_is_refused_with_the_names_that_ship() -> None:
    with pytest.raises(ManifestError, match=r"'mst-huge': no model of this name; use one of mst-lite"):
        find_model("mst-huge")


def test_a_path_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(towels=[]), "towels: Extra inputs are not permitted"),
        (lambda m: m["graph"].update(precision="fp16"), "graph.precision: Extra inputs are not permitted"),
        (lambda m: m.pop("views"), "views: Field required"),
        (lambda m: m.update(schema="sluice.model/2"), "schema: Input should be 'sluice.model/1'"),
        (lambda m: m["views"]["whole"].update(size=8), "views.whole.size: .*greater than or equal to 16"),
        (lambda m: m["views"].update(spare=m["views"]["whole"]), r"no tower uses \['spare'\]"),
        (lambda m: m["towers"][0].update(view="nothing"), "coarse uses view 'nothing'; the views are"),
        (lambda m: m["towers"][0].update(name="whole"), r"\['whole'\] is also a view"),
        (lambda m: m["towers"].append(m["towers"][0]), "each name may appear once"),
        (lambda m: m["heads"].update(fine="finest"), "there is no tower 'finest'"),
        (lambda m: m["heads"].update(type="linear"), "heads.type: Input should be 'gated_template'"),
        (lambda m: m["graph"].update(opset=9), "graph.opset: .*greater than or equal to 17"),
        (lambda m: m["graph"].update(path="../towers.onnx"), "is outside the manifest's folder"),
        (lambda m: m["heads"].update(path="/etc/passwd"), "is outside the manifest's folder"),
        (lambda m: m["graph"].update(sha256="abc"), "graph.sha256: .*match pattern"),
        (lambda m: m.update(anchors=["bad", "good"]), "anchors: .*at least 5 items"),
        (lambda m: m.update(score_range=[5, 1]), "is not ascending"),
        (lambda m: m.update(score_range=[0, 100]), "score_range.0: .*greater than or equal to 1"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(folder: Path, change: Edit, message: str) -> None:
    edit(folder, change)
    with pytest.raises(ManifestError, match=message) as refusal:
        load_model(str(folder))
    assert str(folder / "manifest.json") in str(refusal.value)


def test_what_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff{")
    with pytest.raises(ManifestError, match=r"manifest\.json: Invalid JSON"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["towers.onnx", "heads.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=f"{name}: cannot be read: No such file"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["towers.onnx", "heads.safetensors"])
def test_a_changed_file_is_refused_by_its_digest(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ManifestError, match=f"{name}: sha256 is .* fetch or export the model again"):
        load_model(str(folder))


def test_an_opset_other_than_the_manifests_is_refused(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["graph"].update(opset=manifest["graph"]["opset"] + 1))
    with pytest.raises(ManifestError, match="uses opset 18, the manifest says opset 19"):
        load_model(str(folder))


def test_a_graph_that_is_no_onnx_is_refused(folder: Path) -> None:
    (folder / "towers.onnx").write_bytes(b"PK\x03\x04 a zip")
    edit(folder, lambda manifest: manifest["graph"].update(sha256=sha256(b"PK\x03\x04 a zip").hexdigest()))
    with pytest.raises(ManifestError, match="is not an ONNX model"):
        load_model(str(folder))


def test_heads_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / "heads.safetensors").write_bytes(b"\x80\x04K.")
    edit(folder, lambda manifest: manifest["heads"].update(sha256=sha256(b"\x80\x04K.").hexdigest()))
    with pytest.raises(ManifestError, match="not a safetensors file"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("gff.W_g.bias"), r"no tensor gff\.W_g\.bias"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), r"unknown tensors \['extra'\]"),
        (
            lambda t: t.update({"head.anchors": t["head.anchors"].astype(np.float64)}),
            r"head\.anchors is float64\[5, \d+\], expected float32\[5, \d+\]",
        ),
        (lambda t: t.update({"gff.W_c.weight": t["gff.W_c.weight"][:, 1:].copy()}), r"gff\.W_c\.weight is float32\["),
        (lambda t: t.update({"head.temperature": np.array([np.nan], np.float32)}), "values that are not finite"),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_the_tensor(folder: Path, change: Edit, message: str) -> None:
    edit_heads(folder, change)
    with pytest.raises(ManifestError, match=message):
        load_model(str(folder))


def test_heads_leave_the_other_processors_to_the_engine() -> None:
    load_model("mst-lite")
    libraries = [each for each in threadpool_info() if each["user_api"] == "blas" and "numpy" in each["filepath"]]
    assert {each["num_threads"] for each in libraries} <= {1}
