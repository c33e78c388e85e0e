"""The torch reference against other readers of the same graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.unit.trt_build.towers import SIZE, convolution_towers, write_model
from trt_build.errors import BuildError
from trt_build.torch_engine import TorchEngine
from worker.scoring.engine import EngineError
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine


def views(model: Model, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.integers(0, 256, (batch, *view.shape), np.uint8) for name, view in model.manifest.views.items()
    }


def test_the_shipped_model_gives_the_same_features_in_torch_as_in_openvino() -> None:
    model = load_model("mst-lite")
    images = views(model, 3)
    expected = OpenVinoEngine(model, precision="f32").infer(images)
    found = TorchEngine(model).infer(images)
    assert set(found) == set(expected)
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, atol=1e-4 * np.abs(rows).max())


def test_a_model_gives_what_the_specifications_own_evaluator_gives(tmp_path: Path) -> None:
    model = load_model(str(write_model(tmp_path)))
    images = views(model, 2)
    expected = ReferenceEvaluator(onnx.load_from_string(convolution_towers())).run(None, dict(images))
    found = TorchEngine(model).infer(images)
    for name, rows in zip(("coarse", "fine"), expected, strict=True):
        np.testing.assert_allclose(found[name], rows, atol=1e-5 * np.abs(rows).max())


def test_an_operator_that_is_not_known_is_named() -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["a"], ["b"])],
        "one",
        [info("a", TensorProto.FLOAT, ["n"])],
        [info("b", TensorProto.FLOAT, ["n"])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    model = load_model("mst-lite")
    with pytest.raises(BuildError, match="does not know the operator Tanh"):
        TorchEngine(Model(model.manifest, model.heads, data))


def test_a_batch_without_a_view_is_an_engine_error(tmp_path: Path) -> None:
    engine = TorchEngine(load_model(str(write_model(tmp_path))))
    with pytest.raises(EngineError, match="torch failed on a batch"):
        engine.infer({"other": np.zeros((1, SIZE, SIZE, 3), np.uint8)})
