"""Training on descriptions."""

from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from worker.model.descriptions import Descriptions
from worker.model.losses import quality_loss
from worker.model.network import MstLite


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn: AdamW, the rate rising over the first tenth and falling to nothing."""

    epochs: int = 12
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 1e-2


def fit(
    network: MstLite,
    seen: Descriptions,
    scores: Tensor,
    schedule: Schedule,
    *,
    seed: int,
    progress: Progress,
    title: str,
) -> None:
    """Trains embeddings and heads on the described images and their scores, in place; the backbone is left alone."""
    order = torch.Generator().manual_seed(seed)
    parameters = [value for name, value in network.named_parameters() if "backbone" not in name]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.weight_decay)
    batches = len(scores) // schedule.batch
    steps = schedule.epochs * batches
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=steps, pct_start=0.1)
    task = progress.add_task(title, total=steps)
    network.train()
    for _ in range(schedule.epochs):
        for rows in torch.randperm(len(scores), generator=order)[: batches * schedule.batch].view(batches, -1):
            loss = quality_loss(predict(network, seen[rows]), scores[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()
            progress.advance(task)
    network.eval()


def predict(network: MstLite, seen: Descriptions) -> Tensor:
    """Quality of described images, [images]."""
    quality: Tensor = network.heads(network.coarse.embedding(seen.coarse), network.fine.embedding(seen.fine))
    return quality
