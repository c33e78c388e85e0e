"""Reads a checkpoint of the paper's PyTorch code into our network, exactly or not at all.

Its towers are CLIPs of Hugging Face's transformers below `mstfe.encoder_coarse` and `mstfe.encoder_fine`; `gff` is the
fusion; `head` is a template head (`temperature`), a prompt head (`cross_attn`, `alpha`, `W_1`, `W_2`, `w_o`), or both.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.model.clip.huggingface import Origin, Shape, image_origins, text_origins
from worker.model.clip.network import GATE_HIDDEN, GatedFusion, MstClip, PromptHead, TemplateHead
from worker.model.clip.towers import COARSE, FINE, Encoder, build_clip, image_tower, text_tower

COARSE_PREFIX, FINE_PREFIX = "mstfe.encoder_coarse.", "mstfe.encoder_fine."
CONTAINERS = ("state_dict", "model_state_dict", "model")
"""What training code calls the weights where it keeps other things beside them."""

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
    if source.has(f"{COARSE_PREFIX}text_model."):
        source.fill(coarse_clip.text, COARSE_PREFIX, coarse.name)
    elif text_weights is not None:
        coarse_clip.text = _text_of(Encoder(coarse.name, text_weights))
    else:
        raise CheckpointError(
            f"{file}: holds no text tower ({COARSE_PREFIX}text_model.*), which places the anchors; say whose to use, "
            f"such as the {coarse.weights!r} weights of {coarse.name}"
        )
    source.drop(*(f"{COARSE_PREFIX}{key}" for key in UNUSED), *(f"{FINE_PREFIX}{key}" for key in UNUSED))
    source.drop_below(f"{FINE_PREFIX}text_model.", f"{FINE_PREFIX}text_projection.")
    text = text_tower(coarse_clip, coarse.name)
    coarse_tower, fine_tower = image_tower(coarse_clip, coarse.name), image_tower(fine_clip, fine.name)
    fusion = GatedFusion(coarse_tower.features, fine_tower.features, text.features, source.rows("gff.W_h", GATE_HIDDEN))
    source.fill_own(fusion, "gff.")
    head = prompt_head = None
    if source.has("head.temperature"):
        head = TemplateHead(text.anchors())
        source.fill_own(head, "head.", leave=("anchors",))
    if source.has("head.cross_attn."):
        prompt_head = PromptHead(text.features, text.width, source.rows("head.W_1", text.features))
        source.fill_own(prompt_head, "head.")
    if head is None and prompt_head is None:
        raise CheckpointError(
            f"{file}: neither head.temperature (shape [1], a template head) nor head.cross_attn.* (a prompt "
            "head) is there"
        )
    source.finish()
    return MstClip(coarse_tower, fine_tower, text, fusion, head, prompt_head).eval()


def check_same_towers(file: Path, network: MstClip, other: MstClip) -> None:
    """Raises CheckpointError unless the network of `file` has the towers of the other: a model has one set of them."""
    for part in ("coarse", "fine", "text"):
        ours, theirs = (getattr(each, part).state_dict() for each in (network, other))
        for name, value in theirs.items():
            if ours[name].shape != value.shape or not torch.equal(ours[name], value):
                raise CheckpointError(
                    f"{file}: {name} of its {part} tower is another than in the model; heads belong to the frozen "
                    "towers that they were trained on, so import this checkpoint as a model of its own"
                )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of what torch.save wrote; none of it is executed. Raises CheckpointError."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: holds more than tensors, and loading it would run code of its author's; save only the weights: "
            f"torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{file}: no checkpoint: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    for name in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{file}: expected a dictionary of tensors, as model.state_dict() gives")
    return {str(key): value for key, value in loaded.items()}


class _Source:
    """Takes tensors out of a checkpoint, checking each."""

    def __init__(self, file: Path, tensors: dict[str, Tensor]) -> None:
        self._file = file
        self._tensors = tensors

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

    def fill(self, module: nn.Module, prefix: str, architecture: str) -> None:
        """Fills an open_clip tower from a CLIP of transformers below `prefix`."""
        if isinstance(module, VisionTransformer):
            origins = image_origins(len(module.transformer.resblocks))
        elif isinstance(module, TextTransformer):
            origins = text_origins(len(module.transformer.resblocks))
        else:
            raise CheckpointError(f"{self._file}: {architecture} is no transformer, and a checkpoint's towers are")
        self._fill(module, {ours: _below(prefix, origin) for ours, origin in origins.items()}, f" of {architecture}")

    def fill_own(self, module: nn.Module, prefix: str, *, leave: tuple[str, ...] = ()) -> None:
        """Fills a module of ours, whose parameters have the same names in a checkpoint."""
        origins = {name: Origin((f"{prefix}{name}",)) for name in module.state_dict() if name not in leave}
        self._fill(module, origins, "")

    def _fill(self, module: nn.Module, origins: Mapping[str, Origin], what: str) -> None:
        targets = module.state_dict()
        with torch.no_grad():
            for name, origin in origins.items():
                shape = tuple(targets[name].shape)
                taken = {key: self._take(key, origin.shape(shape), what) for key in origin.keys}
                targets[name].copy_(origin.convert(taken).reshape(shape))
        if missing := targets.keys() - origins.keys() - {"anchors"}:
            raise CheckpointError(f"{self._file}: nothing in a CLIP of transformers fills {sorted(missing)}{what}")

    def _take(self, key: str, shape: Shape, what: str) -> Tensor:
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
                f"{self._file}: unknown keys {', '.join(left[:5])}{more}; does the checkpoint belong to these "
                "architectures (number of layers), and to this network?"
            )


def _below(prefix: str, origin: Origin) -> Origin:
    return Origin(tuple(f"{prefix}{key}" for key in origin.keys), origin.transposed)


def _text_of(encoder: Encoder) -> nn.Module:
    clip: Any = build_clip(encoder)
    text: nn.Module = clip.text
    return text
