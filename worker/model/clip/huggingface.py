"""Where open_clip's parameters stand in a CLIP of Hugging Face's transformers, and how they look there."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """The keys that make up one parameter of open_clip, and how: joined along rows, transposed, or as it is."""

    keys: tuple[str, ...]
    transposed: bool = False

    def shape(self, target: Shape) -> Shape:
        """The shape that each key must have for the parameter to have shape `target`."""
        if self.transposed:
            return target[::-1]
        return (target[0] // len(self.keys), *target[1:]) if len(self.keys) > 1 else target

    def convert(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The parameter."""
        found = [tensors[key] for key in self.keys]
        whole = torch.cat(found) if len(found) > 1 else found[0]
        return whole.T if self.transposed else whole


def image_origins(layers: int) -> dict[str, Origin]:
    """Parameter of open_clip's VisionTransformer → its origin in CLIPModel or CLIPVisionModelWithProjection."""
    return {
        "class_embedding": Origin(("vision_model.embeddings.class_embedding",)),
        "positional_embedding": Origin(("vision_model.embeddings.position_embedding.weight",)),
        "conv1.weight": Origin(("vision_model.embeddings.patch_embedding.weight",)),
        **_both("ln_pre", "vision_model.pre_layrnorm"),
        **_blocks("vision_model.encoder.layers", layers),
        **_both("ln_post", "vision_model.post_layernorm"),
        "proj": Origin(("visual_projection.weight",), transposed=True),
    }


def text_origins(layers: int) -> dict[str, Origin]:
    """Parameter of open_clip's TextTransformer → its origin in CLIPModel or CLIPTextModelWithProjection."""
    return {
        "token_embedding.weight": Origin(("text_model.embeddings.token_embedding.weight",)),
        "positional_embedding": Origin(("text_model.embeddings.position_embedding.weight",)),
        **_blocks("text_model.encoder.layers", layers),
        **_both("ln_final", "text_model.final_layer_norm"),
        "text_projection": Origin(("text_projection.weight",), transposed=True),
    }


_NAMES: Mapping[str, str] = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _blocks(prefix: str, layers: int) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}
    for layer in range(layers):
        ours, theirs = f"transformer.resblocks.{layer}", f"{prefix}.{layer}"
        for kind in ("weight", "bias"):
            parts = tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv")
            origins[f"{ours}.attn.in_proj_{kind}"] = Origin(parts)
        for our, their in _NAMES.items():
            origins |= _both(f"{ours}.{our}", f"{theirs}.{their}")
    return origins


def _both(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.{kind}": Origin((f"{theirs}.{kind}",)) for kind in ("weight", "bias")}
