"""How well scores keep approved images above rejected ones, over all pairs, in time and memory that grow with items."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor


def separation_loss(scores: Tensor, approved: Tensor, margin: float) -> Tensor:
    """Mean over all pairs of an approved and a rejected item of max(0, margin - (s_approved - s_rejected)).

    `scores`, [items]; `approved`, [items], true or false, with one of either at least. An approved item falls short of
    those rejected ones that stand above its score less the margin, so with these sorted, running sums tell the whole.
    """
    above, below = scores[approved].double(), scores[~approved].double().sort().values
    sums = torch.nn.functional.pad(below.cumsum(0), (1, 0))
    first = torch.searchsorted(below.detach(), (above - margin).detach(), right=True)
    shortfall = (len(below) - first) * (margin - above) + sums[-1] - sums[first]
    return (shortfall.sum() / (len(above) * len(below))).to(scores.dtype)


def area(scores: NDArray[np.float64], approved: NDArray[np.bool_]) -> float:
    """The share of pairs in which the approved item scores above the rejected one, ties counting half: Mann and
    Whitney's statistic, which is the area under the ROC curve."""
    above = int(approved.sum())
    ranks = rankdata(scores)[approved].sum() - above * (above + 1) / 2
    return float(ranks / (above * (len(approved) - above)))
