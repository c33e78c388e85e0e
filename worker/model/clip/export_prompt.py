"""Exports the parts that score prompts: the text tower as an ONNX graph, its tokenizer and the prompt heads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor, nn

from worker.model.clip.network import MstClip, TextTower
from worker.model.clip.onnx_export import OPSET, ExportError, to_onnx, write_file
from worker.scoring.manifest import GraphSpec, PromptScore, PromptSpec

HEADS = "prompt.safetensors"
HIDDEN = -1e4


@dataclass(frozen=True, slots=True)
class PromptFiles:
    """The files' contents, before a folder for them is made."""

    text: bytes
    tokenizer: bytes
    heads: bytes | None
    scores: tuple[PromptScore, ...]
    context: int
    features: int

    def write(self, folder: Path) -> PromptSpec:
        """Writes the files and returns their entry in the manifest."""
        return PromptSpec(
            text=GraphSpec(**write_file(folder / "text.onnx", self.text).model_dump(), opset=OPSET),
            tokenizer=write_file(folder / "tokenizer.json", self.tokenizer),
            context=self.context,
            features=self.features,
            heads=None if self.heads is None else write_file(folder / HEADS, self.heads),
            scores=self.scores,
        )


def prompt_files(text: TextTower, prompts: Mapping[PromptScore, MstClip]) -> PromptFiles | None:
    """The files for a text tower and the fusion and prompt head of a network for each score; None for a tower whose
    tokenizer serving does not know, where there is no score.

    Raises ExportError.
    """
    from open_clip.tokenizer import SimpleTokenizer, _clean_lower  # slow to import; training heads needs the rest only

    tokenizer: Any = text.tokenize
    if not isinstance(tokenizer, SimpleTokenizer) or tokenizer.clean_fn is not _clean_lower or tokenizer.reduction_fn:
        if prompts:
            raise ExportError("the text tower's tokenizer is not CLIP's, which is the only one that serving supports")
        return None
    parts: dict[PromptScore, tuple[nn.Module, nn.Module]] = {}
    for score, network in prompts.items():
        if network.prompt_head is None:
            raise ExportError(f"the network for {score} has no prompt head (head.cross_attn.*)")
        parts[score] = network.gff, network.prompt_head
    return PromptFiles(
        text=export_text(text, tokenizer.context_length),
        tokenizer=tokenizer_file(tokenizer),
        heads=prompt_heads_file(parts) if parts else None,
        scores=tuple(parts),
        context=tokenizer.context_length,
        features=text.width,
    )


def export_text(text: TextTower, context: int) -> bytes:
    """The text tower as ONNX: int32 `tokens` [batch, context] → float32 `text` [batch, context, features]. A token's
    features depend on those before it only, so what stands behind a text's end does not matter."""
    with _finite_mask(text.text):
        return to_onnx(_Text(text), {"tokens": torch.zeros(2, context, dtype=torch.int32)}, ["text"])


@contextmanager
def _finite_mask(tower: Any) -> Iterator[None]:
    """Hides the tokens to come by a number that half precision has, and not by infinity. Its exponential is 0 too."""
    mask = tower.attn_mask
    tower.attn_mask = mask.clamp(min=HIDDEN)
    try:
        yield
    finally:
        tower.attn_mask = mask


def tokenizer_file(tokenizer: Any) -> bytes:
    """open_clip's byte pairs as tokenizers keeps them."""
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    pairs = BPE(vocab=dict(tokenizer.encoder), merges=merges, end_of_word_suffix="</w>")
    written: str = Tokenizer(pairs).to_str()
    return written.encode()


def prompt_heads_file(
    parts: Mapping[PromptScore, tuple[nn.Module, nn.Module]], kept: Mapping[str, Tensor] | None = None
) -> bytes:
    """Fusion and prompt head of each score as safetensors, under the names that `worker.scoring.prompt_heads` reads.
    `kept`: what such a file held before; its other scores stay in it."""
    tensors = {name: value for name, value in (kept or {}).items() if name.partition(".")[0] not in parts}
    for score, (gff, head) in parts.items():
        tensors |= {f"{score}.gff.{name}": value for name, value in gff.state_dict().items()}
        tensors |= {f"{score}.{name}": value for name, value in _split_attention(head.state_dict()).items()}
    return save_tensors({name: value.detach().float().cpu().contiguous() for name, value in tensors.items()})


def _split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch keeps the three projections in one tensor where their sizes allow it, and their biases always."""
    found = {name: value for name, value in state.items() if not name.startswith("cross_attn.")}
    query, key, value = (
        state["cross_attn.in_proj_weight"].chunk(3)
        if "cross_attn.in_proj_weight" in state
        else (state[f"cross_attn.{part}_proj_weight"] for part in "qkv")
    )
    biases = state["cross_attn.in_proj_bias"].chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), (query, key, value), biases, strict=True):
        found |= {f"attention.{name}.weight": weight, f"attention.{name}.bias": bias}
    for kind in ("weight", "bias"):
        found[f"attention.out.{kind}"] = state[f"cross_attn.out_proj.{kind}"]
    return found


class _Text(nn.Module):
    def __init__(self, text: TextTower) -> None:
        super().__init__()
        self.text = text

    def forward(self, *inputs: Tensor) -> Tensor:
        (tokens,) = inputs
        of_tokens: Tensor = self.text(tokens)[1]
        return of_tokens
