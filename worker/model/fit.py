"""Trains a judge on maps, or on statistics of maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from worker.model.data import DataError
from worker.model.losses import damage_loss, quality_loss
from worker.model.maps import Maps
from worker.model.network import MstLite, TwoStreamJudge
from worker.model.statistics import Statistics

Seen = Maps | Statistics
"""A judge's inputs, one row per image."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn: AdamW, the rate rising over the first tenth and falling to nothing."""

    epochs: int
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 1e-2
    damaged: int = 8
    """Images of each batch that are also shown damaged."""
    damage_weight: float = 0.1
    """Of the loss for damage that costs too little; more takes from agreement with people (trial 7, lab notebook)."""


POSITIONS = Schedule(epochs=10)
STATISTICS = Schedule(epochs=20)


def fit(
    judge: TwoStreamJudge,
    variants: Sequence[Seen],
    damaged: tuple[Seen, Seen],
    scores: NDArray[np.float32],
    rows: NDArray[np.intp],
    schedule: Schedule,
    seed: int,
    progress: Progress,
    title: str,
) -> None:
    """Trains the judge in place on these rows, with a random variant of every image.

    `damaged` holds what it sees of the same images under mild and under worse damage.

    Raises DataError for fewer than two batches of images.
    """
    random = np.random.default_rng(seed)
    parameters = [parameter for parameter in judge.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.weight_decay)
    batches = len(rows) // schedule.batch
    if batches < 2:
        raise DataError(f"{len(rows)} images are too few to train on; at least {2 * schedule.batch} are needed")
    steps = schedule.epochs * batches
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=steps, pct_start=0.1)
    task = progress.add_task(title, total=steps)
    judge.train()
    for _ in range(schedule.epochs):
        for batch in random.permutation(rows)[: batches * schedule.batch].reshape(batches, -1):
            harmed = batch[: schedule.damaged]
            shown = [variants[int(random.integers(len(variants)))][row] for row in batch]
            shown += [seen[row] for seen in damaged for row in harmed]
            quality = judge(torch.from_numpy(np.stack(shown)))
            judged, mild, worse = quality.split((len(batch), len(harmed), len(harmed)))
            target = torch.from_numpy(scores[batch])
            loss = quality_loss(judged, target)
            unharmed, worth = judged[: len(harmed)], target[: len(harmed)]
            loss = loss + schedule.damage_weight * damage_loss(unharmed, mild, worse, worth)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()
            progress.advance(task)
    judge.eval()


@torch.no_grad()
def fused_norm(judge: TwoStreamJudge, seen: Seen, rows: NDArray[np.intp], batch: int = 128) -> float:
    """The mean norm of the judge's fused features on these rows."""
    norms = [
        judge.fuse(torch.from_numpy(seen[rows[first : first + batch]])).norm(dim=1)
        for first in range(0, len(rows), batch)
    ]
    return float(torch.cat(norms).mean())


@torch.no_grad()
def predict(network: MstLite, maps: Maps, rows: NDArray[np.intp], batch: int = 128) -> NDArray[np.float64]:
    """Quality of these rows of maps."""
    parts = [
        network(torch.from_numpy(maps[rows[first : first + batch]])).double().numpy()
        for first in range(0, len(rows), batch)
    ]
    return np.concatenate(parts)
