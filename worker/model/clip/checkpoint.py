"""Reads a checkpoint of the paper's PyTorch code into our network. Any mismatch is an error.

Its towers are those of Hugging Face's transformers: image towers below `mstfe.encoder_coarse` and `mstfe.encoder_fine`,
the text tower below `head.text_encoder` (github.com/YMlinfeng/MST-CLIPIQA) or in a coarse encoder that is a whole CLIP;
`gff` is the fusion; `head` is a template head (`temperature`, its anchors as `text_features`), a prompt head
(`cross_attn`, `alpha`, `W_1`, `W_2`, `w_o`), or both.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.model.clip.huggingface import Origin, Shape, image_origins, text_origins
from worker.model.clip.network import ANCHORS, GATE_HIDDEN, GatedFusion, MstClip, PromptHead, TemplateHead
from worker.model.clip.towers import COARSE, FINE, Encoder, build_clip, image_tower, text_tower

COARSE_PREFIX, FINE_PREFIX, TEXT_PREFIX = "mstfe.encoder_coarse.", "mstfe.encoder_fine.", "head.text_encoder."
ANCHORS_KEY, GRADES_KEY = "head.text_features", "head.quality_scores"
CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Keys of the weights in checkpoints that hold other data too."""

SAVED = (b"PK", b"\x80")
"""How files of torch.save begin: an archive, or, of old versions, a pickle."""

UNUSED = ("logit_scale", "vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")


class CheckpointError(Exception):
    """A checkpoint cannot be loaded. The message names file, key and expected shape."""


def load_checkpoint(
    file: Path, coarse: Encoder = COARSE, fine: Encoder = FINE, *, text_weights: str | None = None
) -> MstClip:
    """The network of a checkpoint, in evaluation mode.

    `coarse` and `fine` name the architectures; their own weights are not fetched. Where the checkpoint leaves the
    frozen text tower out, it comes from `text_weights` (a tag of open_clip or a file). Raises CheckpointError and
    WeightsError.
    """
    source = _Source(file, read_tensors(file))
    coarse_clip: Any = build_clip(Encoder(coarse.name, None))
    fine_clip: Any = build_clip(Encoder(fine.name, None))
    source.fill(coarse_clip.visual, COARSE_PREFIX, coarse.name)
    source.fill(fine_clip.visual, FINE_PREFIX, fine.name)
    has_template = source.has("head.temperature")
    anchored = has_template and not source.has(ANCHORS_KEY)  # by the text tower
    text_prefix = next((prefix for prefix in (TEXT_PREFIX, COARSE_PREFIX) if source.has(f"{prefix}text_model.")), None)
    if text_prefix is not None:
        # A tower that reads prompts only may come without its projection, which nothing looks at then.
        spare = () if anchored or source.has(f"{text_prefix}text_projection.") else ("text_projection",)
        source.fill(coarse_clip.text, text_prefix, coarse.name, leave=spare)
    elif text_weights is not None:
        coarse_clip.text = _text_of(Encoder(coarse.name, text_weights))
    else:
        raise CheckpointError(
            f"{file}: holds no text tower ({TEXT_PREFIX}text_model.* or {COARSE_PREFIX}text_model.*), which "
            f"prompts and anchors need; pass its weights, such as {coarse.weights!r} of {coarse.name}"
        )
    source.drop(*(f"{prefix}{key}" for prefix in (COARSE_PREFIX, FINE_PREFIX, TEXT_PREFIX) for key in UNUSED))
    for prefix in {COARSE_PREFIX, FINE_PREFIX} - {text_prefix}:
        source.drop_below(f"{prefix}text_model.", f"{prefix}text_projection.")
    text = text_tower(coarse_clip, coarse.name)
    coarse_tower, fine_tower = image_tower(coarse_clip, coarse.name), image_tower(fine_clip, fine.name)
    fusion = GatedFusion(coarse_tower.features, fine_tower.features, text.features, source.rows("gff.W_h", GATE_HIDDEN))
    source.fill_own(fusion, "gff.")
    head = prompt_head = None
    if has_template:
        source.check_grades()
        head = TemplateHead(text.anchors() if anchored else source.take(ANCHORS_KEY, (len(ANCHORS), text.features)))
        source.fill_own(head, "head.", leave=("anchors",))
    if source.has("head.cross_attn."):
        prompt_head = PromptHead(text.features, text.width, source.rows("head.W_1", text.features))
        source.fill_own(prompt_head, "head.")
    if head is None and prompt_head is None:
        raise CheckpointError(
            f"{file}: has neither head.temperature (shape [1], a template head) nor head.cross_attn.* (a prompt head)"
        )
    source.finish()
    return MstClip(coarse_tower, fine_tower, text, fusion, head, prompt_head).eval()


def check_same_towers(file: Path, network: MstClip, other: MstClip) -> None:
    """Raises CheckpointError unless the network of `file` has the towers of the other: a model has one set of them.

    The text tower's projection counts for nothing: prompt heads read the tokens before it.
    """
    for part in ("coarse", "fine", "text"):
        ours, theirs = (getattr(each, part).state_dict() for each in (network, other))
        for name, value in theirs.items():
            if (part, name) == ("text", "text.text_projection"):
                continue
            if ours[name].shape != value.shape or not torch.equal(ours[name], value):
                raise CheckpointError(
                    f"{file}: {name} of its {part} tower differs from the model's; heads work only with the "
                    "frozen towers that they were trained on, so import this checkpoint as a separate model"
                )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of what torch.save wrote; none of it is executed. Raises CheckpointError."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with file.open("rb") as opened:
            loaded = _load_saved(file, opened)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file, or damaged: {error}") from error
    for name in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{file}: expected a dictionary of tensors, as model.state_dict() gives")
    return {str(key): value for key, value in loaded.items()}


def _load_saved(file: Path, opened: BinaryIO) -> Any:
    if not opened.read(2).startswith(SAVED):
        raise CheckpointError(f"{file}: not a checkpoint: neither in torch.save format nor *.safetensors")
    opened.seek(0)
    try:
        return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: contains more than tensors, and loading it would run its author's code; save only the weights: "
            f"torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error
    except Exception as error:  # torch raises any exception for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: a damaged checkpoint: {reason}") from error


class _Source:
    """Takes tensors out of a checkpoint, checking each."""

    def __init__(self, file: Path, tensors: dict[str, Tensor]) -> None:
        self._file = file
        self._tensors = {_with_text_model(key): value for key, value in tensors.items()}

    def has(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self._tensors)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self._tensors.pop(key, None)

    def drop_below(self, *prefixes: str) -> None:
        self._tensors = {key: value for key, value in self._tensors.items() if not key.startswith(prefixes)}

    def rows(self, layer: str, usual: int) -> int:
        """Outputs of a linear layer whose width the paper's code may choose."""
        weight = self._tensors.get(f"{layer}.weight")
        return weight.shape[0] if weight is not None and weight.ndim == 2 else usual

    def fill(self, module: nn.Module, prefix: str, architecture: str, *, leave: tuple[str, ...] = ()) -> None:
        """Fills an open_clip tower from a CLIP of transformers below `prefix`."""
        if isinstance(module, VisionTransformer):
            origins = image_origins(len(module.transformer.resblocks))
        elif isinstance(module, TextTransformer):
            origins = text_origins(len(module.transformer.resblocks))
        else:
            raise CheckpointError(f"{self._file}: {architecture} is not a transformer, but the checkpoint's towers are")
        below = {ours: _below(prefix, origin) for ours, origin in origins.items() if ours not in leave}
        self._fill(module, below, f" of {architecture}", leave)

    def fill_own(self, module: nn.Module, prefix: str, *, leave: tuple[str, ...] = ()) -> None:
        """Fills one of our modules, whose parameters have the same names in a checkpoint."""
        origins = {name: Origin((f"{prefix}{name}",)) for name in module.state_dict() if name not in leave}
        self._fill(module, origins, "", leave)

    def check_grades(self) -> None:
        """The scores that the anchors stand for, where the checkpoint tells them, must be ours."""
        if self.has(GRADES_KEY):
            grades = self.take(GRADES_KEY, (len(ANCHORS),)).tolist()
            if grades != [1, 2, 3, 4, 5]:
                raise CheckpointError(f"{self._file}: {GRADES_KEY} are {grades}, expected 1, 2, 3, 4, 5")

    def _fill(self, module: nn.Module, origins: Mapping[str, Origin], what: str, leave: tuple[str, ...]) -> None:
        targets = module.state_dict()
        with torch.no_grad():
            for name, origin in origins.items():
                shape = tuple(targets[name].shape)
                taken = {key: self.take(key, origin.shape(shape), what) for key in origin.keys}
                targets[name].copy_(origin.convert(taken).reshape(shape))
        if missing := targets.keys() - origins.keys() - set(leave):
            raise CheckpointError(f"{self._file}: nothing in a CLIP of transformers fills {sorted(missing)}{what}")

    def take(self, key: str, shape: Shape, what: str = "") -> Tensor:
        """The tensor, which may be taken once. `what`: of which architecture it is, for messages."""
        if key not in self._tensors:
            raise CheckpointError(f"{self._file}: no {key}; expected shape {list(shape)}{what}")
        tensor = self._tensors.pop(key)
        # A lone number may have been saved with or without its axis.
        if tuple(tensor.shape) != shape and not (tensor.numel() == 1 and shape == (1,)):
            raise CheckpointError(f"{self._file}: {key} has shape {list(tensor.shape)}, expected {list(shape)}{what}")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self._file}: {key} holds values that are not finite")
        return tensor.float()

    def finish(self) -> None:
        if self._tensors:
            left = sorted(self._tensors)
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise CheckpointError(
                f"{self._file}: unknown keys {', '.join(left[:5])}{more}; check that the checkpoint belongs to "
                "these architectures (number of layers) and to this network"
            )


def _with_text_model(key: str) -> str:
    """A CLIPTextModel's parameter as transformers called it before version 5."""
    inside = key.removeprefix(TEXT_PREFIX)
    if inside == key or inside.startswith(("text_model.", "text_projection.")):
        return key
    return f"{TEXT_PREFIX}text_model.{inside}"


def _below(prefix: str, origin: Origin) -> Origin:
    return Origin(tuple(f"{prefix}{key}" for key in origin.keys), origin.transposed)


def _text_of(encoder: Encoder) -> nn.Module:
    clip: Any = build_clip(encoder)
    text: nn.Module = clip.text
    return text
