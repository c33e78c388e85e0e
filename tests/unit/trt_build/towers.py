"""Small towers of our own, and the folder of a model around them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

SIZE = 32
FEATURES = 16


def convolution_towers(seed: int = 0, scale: float = 1.0) -> bytes:
    """Two towers on one view: cast, normalise, convolution, statistics, projection; what mst-lite is made of."""
    random = np.random.default_rng(seed)
    weights: list[TensorProto] = []

    def weight(name: str, values: NDArray[np.generic]) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(name: str, *shape: int) -> str:
        return weight(name, (random.normal(size=shape) * scale / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    node = helper.make_node
    nodes = [
        node("Transpose", ["whole"], ["channels"], perm=[0, 3, 1, 2]),
        node("Cast", ["channels"], ["pixels"], to=TensorProto.FLOAT),
        node("Mul", ["pixels", weight("unit", np.array(1 / 255, np.float32))], ["normal"]),
        node("Conv", ["normal", normal("kernel", 8, 3, 3, 3), normal("bias", 8)], ["maps"], strides=[2, 2]),
        node("Relu", ["maps"], ["active"]),
        node("ReduceMean", ["active", weight("axes", np.array([2, 3], np.int64))], ["mean"], keepdims=1),
        node("Sub", ["active", "mean"], ["deviation"]),
        node("Mul", ["deviation", "deviation"], ["square"]),
        node("ReduceMean", ["square", "axes"], ["variance"], keepdims=1),
        node("Sqrt", ["variance"], ["spread"]),
        node("Concat", ["mean", "spread"], ["both"], axis=1),
        node("Reshape", ["both", weight("flat", np.array([-1, 16], np.int64))], ["description"]),
        node("Gemm", ["description", normal("to_coarse", 16, FEATURES)], ["coarse"]),
        node("Gemm", ["description", normal("to_fine", 16, FEATURES)], ["fine"]),
    ]
    return _model(nodes, weights)


def _model(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "towers",
        [info("whole", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [info(name, TensorProto.FLOAT, ["batch", FEATURES]) for name in ("coarse", "fine")],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


CONTEXT = 12
TOKEN_FEATURES = 8


def text_tower(vocabulary: int, seed: int = 0) -> bytes:
    """Embedding, position and a layer norm: what a text tower begins and ends with."""
    random = np.random.default_rng(seed)
    arrays = {
        "embedding": random.normal(size=(vocabulary, TOKEN_FEATURES)),
        "position": random.normal(size=(CONTEXT, TOKEN_FEATURES)),
        "scale": np.ones(TOKEN_FEATURES),
        "shift": np.zeros(TOKEN_FEATURES),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["embedded"]),
        helper.make_node("Add", ["embedded", "position"], ["placed"]),
        helper.make_node("LayerNormalization", ["placed", "scale", "shift"], ["text"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "text",
        [info("tokens", TensorProto.INT32, ["batch", CONTEXT])],
        [info("text", TensorProto.FLOAT, ["batch", CONTEXT, TOKEN_FEATURES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def byte_tokenizer() -> tuple[bytes, int]:
    """CLIP's tokenizer before it learned any pair, and how many tokens it knows."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<start_of_text>", "<end_of_text>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = Tokenizer(BPE(vocab=vocabulary, merges=[], end_of_word_suffix="</w>"))
    return pairs.to_str().encode(), len(vocabulary)


def _prompt(folder: Path, seed: int) -> dict[str, object]:
    """Writes what prompts are judged with; the manifest's words for it."""
    tokenizer, vocabulary = byte_tokenizer()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "text.onnx").write_bytes(text_tower(vocabulary, seed))
    random = np.random.default_rng(seed)
    shapes = {
        **{f"gff.{name}": (rows, columns) for name, rows, columns in _FUSION},
        "attention.query": (FEATURES, FEATURES),
        "attention.key": (FEATURES, TOKEN_FEATURES),
        "attention.value": (FEATURES, TOKEN_FEATURES),
        "attention.out": (FEATURES, FEATURES),
        "W_1": (8, FEATURES),
        "W_2": (8, FEATURES),
        "w_o": (1, 8),
    }
    tensors = {
        f"correspondence.{name}.{kind}": random.normal(size=shape if kind == "weight" else shape[0]) / np.sqrt(shape[1])
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }
    tensors |= {"correspondence.alpha": np.array([0.5]), "correspondence.w_o.bias": np.array([3.0])}
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, folder / "prompt.safetensors")
    return {
        "text": {"path": "text.onnx", "sha256": _sha256(folder / "text.onnx"), "opset": 18},
        "tokenizer": {"path": "tokenizer.json", "sha256": _sha256(folder / "tokenizer.json")},
        "context": CONTEXT,
        "features": TOKEN_FEATURES,
        "heads": {"path": "prompt.safetensors", "sha256": _sha256(folder / "prompt.safetensors")},
        "scores": ["correspondence"],
    }


_FUSION = (
    ("W_h", 8, 2 * FEATURES),
    ("W_g", FEATURES, 8),
    ("W_c", FEATURES, FEATURES),
    ("W_f", FEATURES, FEATURES),
)


def write_model(
    folder: Path, *, version: str = "1", graph: bytes | None = None, seed: int = 0, prompts: bool = False
) -> Path:
    """A whole model in a folder, one that judges `prompts` or not; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "towers.onnx").write_bytes(graph or convolution_towers(seed))
    random = np.random.default_rng(seed)
    shapes = {
        "gff.W_h.weight": (8, 2 * FEATURES),
        "gff.W_h.bias": (8,),
        "gff.W_g.weight": (FEATURES, 8),
        "gff.W_g.bias": (FEATURES,),
        "gff.W_c.weight": (FEATURES, FEATURES),
        "gff.W_c.bias": (FEATURES,),
        "gff.W_f.weight": (FEATURES, FEATURES),
        "gff.W_f.bias": (FEATURES,),
        "head.anchors": (5, FEATURES),
    }
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors | {"head.temperature": np.array([3], np.float32)}, folder / "heads.safetensors")
    view = {"size": SIZE, "resize": "squash", "mean": [0, 0, 0], "std": [1, 1, 1]}
    manifest = {
        "schema": "sluice.model/1",
        "name": "tiny",
        "version": version,
        "views": {"whole": view},
        "towers": [{"name": name, "view": "whole", "features": FEATURES} for name in ("coarse", "fine")],
        "graph": {"path": "towers.onnx", "sha256": _sha256(folder / "towers.onnx"), "opset": 18},
        "heads": {
            "path": "heads.safetensors",
            "sha256": _sha256(folder / "heads.safetensors"),
            "type": "gated_template",
            "coarse": "coarse",
            "fine": "fine",
        },
        "anchors": ["bad", "poor", "fair", "good", "perfect"],
        "score_range": [1, 5],
        "license": "none",
        "training_data": [],
    }
    if prompts:
        manifest["prompt"] = _prompt(folder, seed)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
