"""What heads learn from: features that were computed once, beside the scores that people gave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, slots=True)
class Texts:
    """The features of each different prompt's tokens, [tokens, features], and which prompt an image has, [images]."""

    tokens: Sequence[Tensor]
    of: Tensor

    def __getitem__(self, rows: Any) -> "Texts":
        return Texts(self.tokens, self.of[rows])

    def padded(self) -> tuple[Tensor, Tensor]:
        """[images, longest, features], and [images, longest]: true where no token stands."""
        each = [self.tokens[prompt] for prompt in self.of.tolist()]
        whole = pad_sequence(each, batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in each])
        return whole, torch.arange(whole.shape[1])[None] >= lengths[:, None]


@dataclass(frozen=True, slots=True)
class Examples:
    """Features of both streams, [images, features], and scores, [images]; prompts where heads are to read them."""

    coarse: Tensor
    fine: Tensor
    scores: Tensor
    texts: Texts | None = None

    def __getitem__(self, rows: Any) -> "Examples":
        rows = torch.as_tensor(rows)
        texts = None if self.texts is None else self.texts[rows]
        return Examples(self.coarse[rows], self.fine[rows], self.scores[rows], texts)

    def __len__(self) -> int:
        return len(self.scores)
