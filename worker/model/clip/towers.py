"""The towers of mst-clip, as open_clip builds them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import nn

from worker.model.clip.network import GatedFusion, ImageTower, MstClip, Preprocessing, TemplateHead, TextTower

WEIGHTS = "openai"


class WeightsError(Exception):
    """Towers or their weights cannot be loaded. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A CLIP of open_clip: the architecture's name, and its weights, a tag or a file; None: random ones."""

    name: str
    weights: str | None = WEIGHTS


COARSE = Encoder("ViT-B-32-quickgelu")
FINE = Encoder("ViT-B-16-quickgelu")


def build_clip(encoder: Encoder) -> nn.Module:
    """The CLIP in evaluation mode, in float32, its text tower as a part of its own. Raises WeightsError."""
    config = open_clip.get_model_config(encoder.name)
    if config is None:
        raise WeightsError(
            f"{encoder.name!r} is not an architecture of open_clip; python -c "
            "'import open_clip; print(open_clip.list_models())' lists them"
        )
    if encoder.weights is not None and not Path(encoder.weights).is_file():
        _check_tag(encoder.name, encoder.weights)
    try:
        clip: nn.Module = open_clip.create_model(encoder.name, pretrained=encoder.weights, force_custom_text=True)
    except Exception as error:  # the hub's client, the parser and the network raise any exception
        raise WeightsError(_by_hand(encoder, error)) from error
    return clip.eval().requires_grad_(False)


def image_tower(clip: Any, name: str) -> ImageTower:
    """The image half of a CLIP. Raises WeightsError for one whose images a view cannot describe."""
    wanted = clip.visual.preprocess_cfg
    size = wanted["size"] if isinstance(wanted["size"], int) else wanted["size"][0]
    if wanted["resize_mode"] not in ("shortest", "squash") or wanted["interpolation"] not in ("bicubic", "bilinear"):
        raise WeightsError(
            f"{name} wants images resized by {wanted['resize_mode']}, {wanted['interpolation']}; a view offers "
            "shortest or squash, bicubic or bilinear: choose another architecture"
        )
    if size != wanted["size"] and len(set(wanted["size"])) > 1:
        raise WeightsError(f"{name} wants images of {wanted['size']}, and a view is square: choose another")
    preprocessing = Preprocessing(
        size, wanted["resize_mode"] == "squash", wanted["interpolation"], tuple(wanted["mean"]), tuple(wanted["std"])
    )
    return ImageTower(clip.visual, preprocessing, _features(name))


def text_tower(clip: Any, name: str) -> TextTower:
    """The text half of a CLIP. Raises WeightsError for one that is not open_clip's own transformer."""
    text = clip.text
    if not isinstance(text, TextTransformer) or text.pool_type != "argmax":
        raise WeightsError(f"the text tower of {name} has no end-of-text token; choose another coarse tower")
    text.output_tokens = True
    tokenizer = open_clip.get_tokenizer(name)
    return TextTower(text, tokenizer, _features(name), text.width)


def build_network(coarse: Encoder = COARSE, fine: Encoder = FINE, *, seed: int = 1) -> MstClip:
    """The network with the encoders' weights and fusion and template head as they are before training.

    `seed` draws the fusion. Raises WeightsError.
    """
    coarse_clip = build_clip(coarse)
    text = text_tower(coarse_clip, coarse.name)
    coarse_tower = image_tower(coarse_clip, coarse.name)
    fine_tower = image_tower(build_clip(fine), fine.name)
    torch.manual_seed(seed)
    fusion = GatedFusion(coarse_tower.features, fine_tower.features, text.features)
    return MstClip(coarse_tower, fine_tower, text, fusion, TemplateHead(text.anchors())).eval()


def _features(name: str) -> int:
    return int(open_clip.get_model_config(name)["embed_dim"])


def _check_tag(name: str, weights: str) -> None:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise WeightsError(
            f"{weights!r} is neither a file nor weights of {name}; those are {', '.join(tags) or 'none'}"
        )


def _by_hand(encoder: Encoder, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if encoder.weights is None or Path(encoder.weights).is_file():
        return f"{encoder.weights or encoder.name}: not weights of {encoder.name}: {reason}"
    source = open_clip.get_pretrained_cfg(encoder.name, encoder.weights) or {}
    repository = str(source.get("hf_hub") or source.get("url") or "their authors").rstrip("/")
    return (
        f"the weights {encoder.weights!r} of {encoder.name} could not be fetched ({reason}). To add them by "
        f"hand: download open_clip_model.safetensors of {repository} (Hugging Face hub) on another machine, copy "
        f"it here, and pass its path instead of {encoder.weights!r}"
    )
