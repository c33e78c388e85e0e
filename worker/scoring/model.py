"""Loads a model from disk. Each file in its manifest is checked against its digest."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from worker.scoring.blas import use_one_blas_thread
from worker.scoring.heads import Heads
from worker.scoring.manifest import (
    MANIFEST_NAME,
    FileSpec,
    GraphSpec,
    ManifestError,
    ModelManifest,
    PromptSpec,
    load_manifest,
)
from worker.scoring.onnx_file import read_opset
from worker.scoring.open_store import open_store
from worker.scoring.prompt_heads import PromptHeads
from worker.scoring.prompts import PromptScorer, RunText, TextFeatures
from worker.scoring.repository import cache_folder, fetch_model
from worker.scoring.stores import RepositoryError
from worker.scoring.token_ids import Tokenize
from worker.settings import S3Settings

SHIPPED_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class PromptParts:
    """The parts that score images with prompts. `text`: the text tower's ONNX file. `heads`: None before training."""

    spec: PromptSpec
    text: bytes
    tokenizer: Tokenize
    heads: PromptHeads | None

    def features(self, run: RunText, largest: int) -> TextFeatures:
        """Computes token features with a text tower that takes `largest` texts per call."""
        return TextFeatures(self.tokenizer, run, largest=largest)

    def scorer(self, run: RunText, largest: int) -> PromptScorer:
        """Scores prompts with a text tower that takes `largest` texts per call. Raises ValueError without heads."""
        if self.heads is None:
            raise ValueError("this model's prompt head is not trained")
        return PromptScorer(self.heads, self.features(run, largest), len(self.spec.scores))


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose files were checked against its manifest. `graph` is the ONNX file's content."""

    manifest: ModelManifest
    heads: Heads
    graph: bytes
    prompt: PromptParts | None = None

    @property
    def judging_prompts(self) -> PromptParts | None:
        """The parts for prompts; None for a model that ignores prompts."""
        return self.prompt if self.prompt is not None and self.prompt.heads is not None else None


def find_model(name_or_path: str, s3: S3Settings | None = None) -> Path:
    """Finds a model's manifest: by the name of a shipped model, by the path of a manifest or its folder, or by its
    place in a model repository. `DIR/mst-clip` is the promoted version, `DIR/mst-clip/1.2.0` that version; `DIR` is a
    folder or `s3://bucket/models`. Raises ManifestError for anything else; the message lists the shipped models.
    """
    shipped = sorted(folder.name for folder in SHIPPED_MODELS.iterdir() if (folder / MANIFEST_NAME).is_file())
    if name_or_path in shipped:
        return SHIPPED_MODELS / name_or_path / MANIFEST_NAME
    path = Path(name_or_path)
    if "://" in name_or_path or (path.is_dir() and not (path / MANIFEST_NAME).is_file() and any(_versions(path))):
        try:
            return fetch_model(open_store(name_or_path, s3 or S3Settings()), cache_folder("models"))
        except RepositoryError as error:
            raise ManifestError(str(error)) from error
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    if not manifest.is_file():
        what = "no such manifest" if os.sep in name_or_path or path.exists() else "no model of this name"
        raise ManifestError(
            f"model {name_or_path!r}: {what}; use one of {', '.join(shipped)}, a manifest, or a folder with a "
            f"{MANIFEST_NAME}"
        )
    return manifest


def load_model(name_or_path: str, s3: S3Settings | None = None) -> Model:
    """Loads a model and checks every file that it names. `s3`: settings for a repository in S3. Raises ManifestError.
    Limits NumPy to one thread in this process (blas.py).
    """
    use_one_blas_thread()
    path = find_model(name_or_path, s3)
    manifest = load_manifest(path)
    graph = _read_graph(path, manifest.graph)
    heads = Heads(manifest, _read_tensors(path, manifest.heads))
    return Model(manifest, heads, graph, _prompt_parts(path, manifest))


def _prompt_parts(path: Path, manifest: ModelManifest) -> PromptParts | None:
    spec = manifest.prompt
    if spec is None:
        return None
    text = _read_graph(path, spec.text)
    from worker.scoring.tokenizer import ClipTokenizer  # imports tokenizers and ftfy, which other models do not need

    where = str(path.parent / spec.tokenizer.path)
    tokenizer = ClipTokenizer.read(where, _read(path, spec.tokenizer), spec.context)
    heads = None if spec.heads is None else PromptHeads(manifest, _read_tensors(path, spec.heads))
    return PromptParts(spec, text, tokenizer, heads)


def _read_graph(manifest: Path, spec: GraphSpec) -> bytes:
    graph = _read(manifest, spec)
    opset = read_opset(graph)
    if opset != spec.opset:
        found = "is not an ONNX model" if opset is None else f"uses opset {opset}"
        raise ManifestError(
            f"{manifest.parent / spec.path}: {found}, the manifest says opset {spec.opset}; export the model again"
        )
    return graph


def _read_tensors(manifest: Path, spec: FileSpec) -> dict[str, NDArray[np.generic]]:
    try:
        return load_tensors(_read(manifest, spec))
    except SafetensorError as error:
        raise ManifestError(f"{manifest.parent / spec.path}: not a safetensors file: {error}") from error


def _versions(folder: Path) -> Iterator[Path]:
    return folder.glob(f"*/{MANIFEST_NAME}")


def _read(manifest: Path, spec: FileSpec) -> bytes:
    file = manifest.parent / spec.path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}; {manifest} needs it") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.sha256:
        raise ManifestError(
            f"{file}: sha256 is {digest}, {manifest.name} says {spec.sha256}; "
            "the file is damaged or from another version: fetch or export the model again"
        )
    return data
