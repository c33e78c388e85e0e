"""The model manifest: a JSON file beside the weights that names everything that serving needs."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas import Name
from worker.scoring.engine import PROMPT
from worker.view import ViewSpec

MANIFEST_NAME = "manifest.json"

OLDEST_OPSET, NEWEST_OPSET = 17, 23

PartName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
"""A view or a tower; also the name of a graph's input or output."""


class ManifestError(Exception):
    """A model cannot be used. The message says what is wrong, where, and what to do."""


class StrictModel(BaseModel):
    """Immutable, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileSpec(StrictModel):
    """A file in the manifest's folder."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _stays_in_the_folder(self) -> Self:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or "\\" in self.path:
            raise ValueError(f"{self.path!r} is outside the manifest's folder; name a file inside it")
        return self


class GraphSpec(FileSpec):
    """The towers as one ONNX graph: uint8 inputs named by view, float32 outputs named by tower; it normalises."""

    opset: Annotated[int, Field(ge=OLDEST_OPSET, le=NEWEST_OPSET)]


class TowerSpec(StrictModel):
    """One tower: its view and its number of features."""

    name: PartName
    view: PartName
    features: Annotated[int, Field(ge=1, le=65536)]


class HeadsSpec(FileSpec):
    """The heads' weights as safetensors, and the towers of the two streams."""

    type: Literal["gated_template"]
    coarse: PartName
    fine: PartName


PromptScore = Literal["quality", "correspondence"]
"""The scores of prompt heads: the image's quality, and how well it fits its prompt."""


class PromptSpec(StrictModel):
    """The parts that score an image with its prompt: a text tower, and heads that attend to the prompt's tokens.

    `text`: the text tower as an ONNX graph, int32 `tokens` [batch, context] → float32 `text` [batch, context,
    features]. `tokenizer`: CLIP's byte pairs as tokenizers keeps them. `heads`: a prompt head for each of `scores`, as
    safetensors; absent before one was trained.
    """

    text: GraphSpec
    tokenizer: FileSpec
    context: Annotated[int, Field(ge=8, le=4096)]
    features: Annotated[int, Field(ge=1, le=65536)]
    heads: FileSpec | None = None
    scores: Annotated[tuple[PromptScore, ...], Field(max_length=2)] = ()

    @model_validator(mode="after")
    def _heads_give_scores(self) -> Self:
        if len(set(self.scores)) != len(self.scores):
            raise ValueError(f"scores: each may appear once, got {list(self.scores)}")
        if (self.heads is None) != (not self.scores):
            raise ValueError("heads and scores must be set together: name the file and its scores, or neither")
        return self


class Measurement(StrictModel):
    """A model's quality on images that it was not trained on, with the protocol of the measurement."""

    dataset: str
    protocol: str
    images: Annotated[int, Field(ge=1)]
    srcc: Annotated[float, Field(ge=-1, le=1)]
    plcc: Annotated[float, Field(ge=-1, le=1)] | None = None
    srcc_within_generator: Annotated[float, Field(ge=-1, le=1)] | None = None
    score: PromptScore = "quality"


class ParityLimits(StrictModel):
    """The maximum differences of a compiled engine from the reference on the golden set.

    Feature errors are in units of the tower's RMS, score errors on the scale of scores; `max_flips`: the share of
    images with another route.
    """

    max_feature_error: Annotated[float, Field(gt=0)] = 0.5
    mean_feature_error: Annotated[float, Field(gt=0)] = 0.02
    max_score_error: Annotated[float, Field(gt=0)] = 0.1
    mean_score_error: Annotated[float, Field(gt=0)] = 0.02
    min_spearman: Annotated[float, Field(gt=0, le=1)] = 0.999
    max_flips: Annotated[float, Field(ge=0, le=1)] = 0.02


_LATER = ("parity", "precision", "prompt")
"""Fields that were added later."""


class ModelManifest(StrictModel):
    """Identity, inputs, weights and provenance of a model: `sluice.model/1`."""

    schema_: Literal["sluice.model/1"] = Field(default="sluice.model/1", alias="schema")
    name: Name
    version: Name
    views: dict[PartName, ViewSpec] = Field(min_length=1, max_length=8)
    towers: Annotated[tuple[TowerSpec, ...], Field(min_length=1, max_length=8)]
    graph: GraphSpec
    heads: HeadsSpec
    prompt: PromptSpec | None = None
    precision: Literal["bf16"] | None = None
    """The precision of the towers when the heads were trained and the quality was measured. Default: float32. `sluice
    verify` compares engines with it, and `sluice build` uses it by default.
    """
    anchors: Annotated[tuple[str, ...], Field(min_length=5, max_length=5)]
    score_range: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(le=5)]]
    license: str
    training_data: tuple[str, ...]
    quality: tuple[Measurement, ...] = ()
    parity: ParityLimits | None = None
    """The limits of `sluice verify`. Default: the standard limits."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        towers = [tower.name for tower in self.towers]
        if len(set(towers)) != len(towers):
            raise ValueError(f"towers: each name may appear once, got {towers}")
        if PROMPT in towers:
            raise ValueError(f"towers: {PROMPT} is reserved for the prompt head's scores; rename the tower")
        if clash := set(towers) & set(self.views):
            raise ValueError(
                f"towers: {sorted(clash)} is also a view, and the names in a graph must differ; rename one"
            )
        for tower in self.towers:
            if tower.view not in self.views:
                raise ValueError(f"towers: {tower.name} uses view {tower.view!r}; the views are {sorted(self.views)}")
        if unseen := set(self.views) - {tower.view for tower in self.towers}:
            raise ValueError(f"views: no tower uses {sorted(unseen)}; remove it")
        for stream in (self.heads.coarse, self.heads.fine):
            if stream not in towers:
                raise ValueError(f"heads: there is no tower {stream!r}; the towers are {towers}")
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError(f"score_range: {self.score_range} is not ascending; the shipped models use [1, 5]")
        return self

    @property
    def digest(self) -> str:
        """Identity of the model: sha256 of this manifest as canonical JSON; the files' digests are in it."""
        # Unset fields are left out, so that manifests from before a field was added keep their digest.
        fields = self.model_dump(mode="json", by_alias=True)
        fields = {name: value for name, value in fields.items() if name not in _LATER or value is not None}
        for measured in fields["quality"]:
            if measured["score"] == "quality":
                del measured["score"]
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    @property
    def judges_prompts(self) -> bool:
        """Whether an image's scores depend on its prompt."""
        return self.prompt is not None and self.prompt.heads is not None

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """All files that the manifest names."""
        prompt = self.prompt
        named = () if prompt is None else (prompt.text, prompt.tokenizer, prompt.heads)
        return (self.graph, self.heads, *(spec for spec in named if spec is not None))

    def tower(self, name: str) -> TowerSpec:
        """The tower of that name; raises KeyError."""
        return {tower.name: tower for tower in self.towers}[name]


def load_manifest(path: Path) -> ModelManifest:
    """Reads a manifest, given its file or its folder. Raises ManifestError."""
    file = path / MANIFEST_NAME if path.is_dir() else path
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise ManifestError(f"{file}: no such file; use a manifest, or a folder with a {MANIFEST_NAME}") from error
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        return ModelManifest.model_validate_json(text)
    except ValidationError as error:
        raise ManifestError(f"{file}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A validation error as one line, without the document's values."""
    return "; ".join(
        ": ".join(part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part)
        for problem in error.errors(include_url=False)
    )
