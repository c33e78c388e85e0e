"""What training minimises."""

import torch
from torch import Tensor


def ranking_loss(predicted: Tensor, target: Tensor, margin: float = 0.1) -> Tensor:
    """Mean over all pairs of a batch whose targets differ of max(0, margin - (p_better - p_worse)).

    The pairwise margin ranking of MST-CLIPIQA (arXiv 2606.16799); 0 for a batch without such a pair. Shapes: [batch].
    """
    better = target[:, None] > target[None, :]
    shortfall = torch.relu(margin - (predicted[:, None] - predicted[None, :]))
    return (shortfall * better).sum() / better.sum().clamp(min=1)


def quality_loss(predicted: Tensor, target: Tensor, ranking_weight: float = 1.0) -> Tensor:
    """Smooth L1 (which forgives the odd outlier among human means) plus the ranking loss."""
    close = torch.nn.functional.smooth_l1_loss(predicted, target, beta=0.5)
    return close + ranking_weight * ranking_loss(predicted, target)


def damage_loss(intact: Tensor, mild: Tensor, worse: Tensor, target: Tensor) -> Tensor:
    """Mean shortfall of what damage should cost: if mild, a twentieth of what the target has above 1, if worse, a
    tenth more. Shapes: [batch], row for row the same image under damage of one kind.
    """
    worth = target - 1
    shortfall = torch.relu(0.05 * worth - (intact - mild)) + torch.relu(0.1 * worth - (mild - worse))
    return shortfall.mean()
