"""What mst-lite scores with, in the shape of MST-CLIPIQA (design.md section 5): gated fusion and a template head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EMBEDDING = 256
"""Features of a stream as one judge sees it."""
GATE_HIDDEN = 128
ANCHORS = ("bad", "poor", "fair", "good", "perfect")


class LiteGatedFusion(nn.Module):
    """z = g ⊙ W_c c + (1 - g) ⊙ W_f f with g = sigmoid(W_g ReLU(W_h [c; f]))."""

    def __init__(self, features: int = EMBEDDING, hidden: int = GATE_HIDDEN) -> None:
        super().__init__()
        self.W_h = nn.Linear(2 * features, hidden)
        self.W_g = nn.Linear(hidden, features)
        self.W_c = nn.Linear(features, features)
        self.W_f = nn.Linear(features, features)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        gate = torch.sigmoid(self.W_g(torch.relu(self.W_h(torch.cat((coarse, fine), dim=1)))))
        fused: Tensor = gate * self.W_c(coarse) + (1 - gate) * self.W_f(fine)
        return fused


class LiteTemplateHead(nn.Module):
    """Cosines with five anchors, times a temperature; softmax; expectation over 1..5.

    The anchors, which the paper takes from a text encoder, are learned here. The temperature starts lower than its 100,
    since random anchors are nearly orthogonal where text embeddings are close together.
    """

    def __init__(self, features: int = EMBEDDING) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(len(ANCHORS), features) / features**0.5)
        self.temperature = nn.Parameter(torch.tensor([10.0]))
        self.register_buffer("values", torch.linspace(1, 5, len(ANCHORS)), persistent=False)
        self.values: Tensor

    def forward(self, fused: Tensor) -> Tensor:
        cosines = nn.functional.normalize(fused, dim=1) @ nn.functional.normalize(self.anchors, dim=1).T
        return torch.softmax(self.temperature * cosines, dim=1) @ self.values


class QualityHeads(nn.Module):
    """The part that serving runs in NumPy: two embeddings, [batch, features] each → quality, 1..5, [batch]."""

    def __init__(self, features: int = EMBEDDING, hidden: int = GATE_HIDDEN) -> None:
        super().__init__()
        self.gff = LiteGatedFusion(features, hidden)
        self.head = LiteTemplateHead(features)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        quality: Tensor = self.head(self.gff(coarse, fine))
        return quality


@torch.no_grad()
def join_heads(heads: Sequence[QualityHeads], norms: Sequence[float]) -> QualityHeads:
    """One head of the several, for their embeddings side by side: nearly the mean of what they say.

    `norms` are the mean norms of each one's fused features. All are brought to the same one, so cosines of the joined
    features are near the mean of the single cosines, the temperatures being kept as lengths of the anchors. That one is
    the mean of all, since how far a step of further training goes depends on the size of the weights.
    """
    count = len(heads)
    divisors = [norm * count / sum(norms) for norm in norms]
    joined = QualityHeads(count * EMBEDDING, count * GATE_HIDDEN)
    fusions, templates = [each.gff for each in heads], [each.head for each in heads]
    coarse, fine = zip(*(each.W_h.weight.chunk(2, dim=1) for each in fusions), strict=True)
    joined.gff.W_h.weight.copy_(torch.cat((_diagonal(coarse), _diagonal(fine)), dim=1))
    joined.gff.W_h.bias.copy_(torch.cat([each.W_h.bias for each in fusions]))
    _stack(joined.gff.W_g, [each.W_g for each in fusions], [1.0] * count)
    _stack(joined.gff.W_c, [each.W_c for each in fusions], divisors)
    _stack(joined.gff.W_f, [each.W_f for each in fusions], divisors)
    anchors = [each.temperature * nn.functional.normalize(each.anchors, dim=1) for each in templates]
    joined.head.anchors.copy_(torch.cat(anchors, dim=1))
    joined.head.temperature.copy_(torch.stack([each.temperature for each in templates]).square().mean(0).sqrt())
    return joined


def _stack(joined: nn.Linear, layers: Sequence[nn.Linear], divisors: Sequence[float]) -> None:
    """Each layer on its own part of the input to its own part of the output, divided."""
    joined.weight.copy_(_diagonal([one.weight / by for one, by in zip(layers, divisors, strict=True)]))
    joined.bias.copy_(torch.cat([one.bias / by for one, by in zip(layers, divisors, strict=True)]))


def _diagonal(blocks: Sequence[Tensor]) -> Tensor:
    matrix: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix
