"""The network of MST-CLIPIQA (arXiv 2606.16799): two image towers, gated fusion, a template head, a prompt head."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ANCHORS = ("bad", "poor", "fair", "good", "perfect")
TEMPLATES = tuple(f"a photo with {anchor} quality" for anchor in ANCHORS)
"""What the text tower reads to place the anchors."""

GATE_HIDDEN = 128
TEMPERATURE = 100.0
ATTENTION_HEADS = 8

Tokenizer = Callable[[list[str]], Tensor]
"""Texts → token ids, [texts, context], int64; 0 after the end of a text."""


class GatedFusion(nn.Module):
    """z = g ⊙ W_c c + (1 - g) ⊙ W_f f with g = sigmoid(W_g ReLU(W_h [c; f])).

    `coarse`, `fine`, `fused`: how many features there are of each; `hidden`: the gate's bottleneck.
    """

    def __init__(self, coarse: int, fine: int, fused: int, hidden: int = GATE_HIDDEN) -> None:
        super().__init__()
        self.W_h = nn.Linear(coarse + fine, hidden)
        self.W_g = nn.Linear(hidden, fused)
        self.W_c = nn.Linear(coarse, fused)
        self.W_f = nn.Linear(fine, fused)

    def gate(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """How much each dimension listens to the coarse stream: [batch, fused], 0..1."""
        return torch.sigmoid(self.W_g(torch.relu(self.W_h(torch.cat((coarse, fine), dim=1)))))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[batch, coarse], [batch, fine] → [batch, fused]."""
        gate = self.gate(coarse, fine)
        fused: Tensor = gate * self.W_c(coarse) + (1 - gate) * self.W_f(fine)
        return fused


class TemplateHead(nn.Module):
    """Cosines with five anchors, times a learned temperature; softmax; expectation over 1..5.

    The anchors, [5, fused], are given and stay as they are.
    """

    def __init__(self, anchors: Tensor, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors)
        self.temperature = nn.Parameter(torch.tensor([temperature]))
        self.register_buffer("values", torch.linspace(1, 5, len(ANCHORS)), persistent=False)
        self.anchors: Tensor
        self.values: Tensor

    def distribution(self, fused: Tensor) -> Tensor:
        """Probability of each anchor, [batch, 5]."""
        cosines = nn.functional.normalize(fused, dim=1) @ nn.functional.normalize(self.anchors, dim=1).T
        return torch.softmax(self.temperature * cosines, dim=1)

    def forward(self, fused: Tensor) -> Tensor:
        """[batch, fused] → quality, 1..5, [batch]."""
        return self.distribution(fused) @ self.values


class PromptHead(nn.Module):
    """A score of an image beside its prompt: w_o(GELU(W_1 z') + W_2 z') with z' = z + alpha attention(z → tokens).

    The attention has 8 heads, alpha starts at 0. One head is trained for quality, another for correspondence. `tokens`:
    how many features a token has; `hidden`: width of W_1 and W_2.
    """

    def __init__(self, fused: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(fused, ATTENTION_HEADS, kdim=tokens, vdim=tokens, batch_first=True)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.W_1 = nn.Linear(fused, hidden)
        self.W_2 = nn.Linear(fused, hidden)
        self.w_o = nn.Linear(hidden, 1)

    def forward(self, fused: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """[batch, fused], [batch, context, tokens], [batch, context] (true where no token stands) → [batch]."""
        attended, _ = self.cross_attn(fused[:, None], tokens, tokens, key_padding_mask=padding, need_weights=False)
        prompted = fused + self.alpha * attended[:, 0]
        score: Tensor = self.w_o(nn.functional.gelu(self.W_1(prompted)) + self.W_2(prompted))
        return score[:, 0]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What an image tower wants to see: square images of `size`, normalised."""

    size: int
    squash: bool
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ImageTower(nn.Module):
    """An open_clip image tower that takes pixels as they are: uint8 [batch, H, W, 3] → [batch, features]."""

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing, features: int) -> None:
        super().__init__()
        self.visual = visual
        self.preprocessing = preprocessing
        self.features = features
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        features: Tensor = self.visual((scaled - self.mean) / self.std)
        return features


class TextTower(nn.Module):
    """open_clip's text transformer with its tokenizer."""

    def __init__(self, text: nn.Module, tokenize: Tokenizer, features: int, width: int) -> None:
        super().__init__()
        self.text = text
        self.tokenize = tokenize
        self.features = features
        self.width = width

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids, [batch, context] → the text's embedding, [batch, features], and its tokens', [batch, context,
        width], after the last layer norm and before the projection."""
        embedding, of_tokens = self.text(tokens)
        return embedding, of_tokens

    def anchors(self) -> Tensor:
        """Embeddings of the five templates, [5, features]."""
        with torch.no_grad():
            embedded: Tensor = self(self.tokenize(list(TEMPLATES)))[0]
        return embedded


def padding_of(tokens: Tensor) -> Tensor:
    """True behind the end of each text, [batch, context]; the end has the highest id of the vocabulary."""
    end = tokens.argmax(dim=1, keepdim=True)
    return torch.arange(tokens.shape[1], device=tokens.device)[None] > end


class MstClip(nn.Module):
    """The whole network. Towers are frozen; `head` is absent where only a prompt head was trained, and vice versa."""

    def __init__(
        self,
        coarse: ImageTower,
        fine: ImageTower,
        text: TextTower,
        gff: GatedFusion,
        head: TemplateHead | None,
        prompt_head: PromptHead | None = None,
    ) -> None:
        super().__init__()
        self.coarse = coarse.requires_grad_(False)
        self.fine = fine.requires_grad_(False)
        self.text = text.requires_grad_(False)
        self.gff = gff
        self.head = head
        self.prompt_head = prompt_head

    def quality(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """The template head's score, 1..5, of features [batch, features] each → [batch]."""
        if self.head is None:
            raise ValueError("this network has no template head")
        quality: Tensor = self.head(self.gff(coarse, fine))
        return quality

    def prompted(self, coarse: Tensor, fine: Tensor, prompts: list[str]) -> Tensor:
        """The prompt head's score of features beside one prompt each → [batch], on the scale that it was trained on."""
        if self.prompt_head is None:
            raise ValueError("this network has no prompt head")
        tokens = self.text.tokenize(prompts).to(coarse.device)
        score: Tensor = self.prompt_head(self.gff(coarse, fine), self.text(tokens)[1], padding_of(tokens))
        return score
