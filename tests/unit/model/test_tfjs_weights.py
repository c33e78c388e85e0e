"""Reading weights out of JavaScript bundles."""

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from worker.model import tfjs
from worker.model.tfjs import BackboneError, read_weights

MODEL = """!function(e){a.exports={modelTopology:{layers:[]},weightsManifest:[{paths:["group1-shard1of1"],weights:[
{name:"Conv1/kernel",shape:[2,2],dtype:"float32",quantization:{min:-.5,scale:25e-2,dtype:"uint8"}},
{name:"Conv1/bias",shape:[2],dtype:"float32"}]}],trainable:!0}}""".replace("\n", "")


def write_package(folder: Path, packed: bytes, model: str = MODEL) -> Path:
    shard = 'x.exports="' + base64.b64encode(packed).decode() + '"'
    package = folder / "nsfwjs.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name, text in (("model", model), ("group1-shard1of1", shard)):
            entry = tarfile.TarInfo(f"package/dist/models/tiny/{name}.min.js")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return package


def trust(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tfjs, "PACKAGE_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    return package


PACKED = bytes([0, 1, 2, 4]) + np.array([1.5, -2], "<f4").tobytes()


def test_quantised_and_plain_weights_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = read_weights(trust(write_package(tmp_path, PACKED), monkeypatch), "tiny")
    np.testing.assert_allclose(weights["Conv1/kernel"], [[-0.5, -0.25], [0, 0.5]])
    np.testing.assert_allclose(weights["Conv1/bias"], [1.5, -2])


def test_another_package_is_refused_with_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"sha256 is .*, expected .*npm pack nsfwjs@4\.3\.0"):
        read_weights(write_package(tmp_path, PACKED), "tiny")


def test_left_over_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = trust(write_package(tmp_path, PACKED + b"1234"), monkeypatch)
    with pytest.raises(BackboneError, match="hold 16 bytes, the manifest describes 12"):
        read_weights(package, "tiny")


def test_a_model_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match=r"no file package/dist/models/other/model\.min\.js"):
        read_weights(trust(write_package(tmp_path, PACKED), monkeypatch), "other")
