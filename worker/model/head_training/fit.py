"""Fits heads to human scores: by default with loss and schedule of MST-CLIPIQA (arXiv 2606.16799)."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from worker.model.data import DataError
from worker.model.head_training.examples import Examples
from worker.model.head_training.heads import Trainable
from worker.model.losses import ranking_loss
from worker.model.metrics import srcc

ROWS = 512
"""Examples judged at once."""

HeadsT = TypeVar("HeadsT", bound=Trainable)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Adam with weight decay; MSE plus `ranking` times the pairwise margin ranking; `patience`: epochs without a better
    SRCC on the validation fold before training stops, None: never."""

    epochs: int = 20
    batch: int = 8
    rate: float = 5e-6
    weight_decay: float = 1e-3
    margin: float = 0.1
    ranking: float = 1.0
    patience: int | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """Mean training loss, SRCC on the validation fold (None without one), seconds."""

    loss: float
    validation: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted(Generic[HeadsT]):
    """`best` counts the epochs after which the heads were as they now are."""

    heads: HeadsT
    epochs: tuple[Epoch, ...]
    best: int


def fit(
    heads: HeadsT,
    examples: Examples,
    recipe: Recipe,
    *,
    validation: Examples | None = None,
    checkpoint: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Fitted[HeadsT]:
    """Trains the heads in place. With a validation fold, they end as they were when it agreed best.

    With a `checkpoint` file, training goes on where that file says it was, and the file is kept up with every epoch;
    the outcome is the same as without interruption. The file must be of the same recipe and data. Raises DataError
    where the loss is no number any more.
    """
    parameters = [parameter for parameter in heads.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    order = torch.Generator().manual_seed(recipe.seed)
    epochs: list[Epoch] = []
    best, best_state, best_value = 0, copy.deepcopy(heads.state_dict()), -2.0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        order.set_state(state["order"])
        epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        best, best_state, best_value = state["best"], state["best_state"], state["best_value"]
        for _ in epochs:
            advance()
    while len(epochs) < recipe.epochs and not _exhausted(len(epochs), best, recipe, validation):
        started = time.perf_counter()
        with one_thread():
            loss = _one_epoch(heads, optimiser, examples, recipe, order)
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise DataError(
                f"training fell apart: the loss of epoch {len(epochs) + 1} is {loss}; lower --rate "
                f"({recipe.rate:g}) or --weight-decay ({recipe.weight_decay:g}), and name a new folder"
            )
        agreement = None if validation is None else _agreement(heads, validation)
        epochs.append(Epoch(loss, agreement, seconds))
        if agreement is None or agreement > best_value:
            best, best_state = len(epochs), copy.deepcopy(heads.state_dict())
            best_value = best_value if agreement is None else agreement
        if checkpoint is not None:
            state = {
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "order": order.get_state(),
                "epochs": [asdict(epoch) for epoch in epochs],
                "best": best,
                "best_state": best_state,
                "best_value": best_value,
            }
            _save(state, checkpoint)
        advance()
    heads.load_state_dict(best_state)
    return Fitted(heads.eval(), tuple(epochs), best)


@contextmanager
def one_thread() -> Iterator[None]:
    """Batches of heads are too small to share: on a busy machine several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def predict(heads: Trainable, examples: Examples) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The score of each example, about 1..5."""
    with torch.no_grad():
        parts = torch.split(torch.arange(len(examples)), ROWS)
        judged: np.ndarray[Any, np.dtype[np.float64]] = (
            torch.cat([heads.judge(examples[part]) for part in parts]).double().numpy()
        )
    return judged


def _one_epoch(
    heads: Trainable, optimiser: torch.optim.Optimizer, examples: Examples, recipe: Recipe, order: torch.Generator
) -> float:
    heads.train()
    total = 0.0
    for rows in torch.split(torch.randperm(len(examples), generator=order), recipe.batch):
        batch = examples[rows]
        judged = heads.judge(batch)
        loss = torch.nn.functional.mse_loss(judged, batch.scores) + recipe.ranking * ranking_loss(
            judged, batch.scores, recipe.margin
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(rows)
    return total / len(examples)


def _exhausted(done: int, best: int, recipe: Recipe, validation: Examples | None) -> bool:
    return validation is not None and recipe.patience is not None and done - best >= recipe.patience


def _agreement(heads: Trainable, examples: Examples) -> float:
    return srcc(predict(heads.eval(), examples), examples.scores.double().numpy())


def _save(state: dict[str, Any], file: Path) -> None:
    """Whole or not at all: a run may be stopped at any moment."""
    part = file.with_name(file.name + ".part")
    torch.save(state, part)
    part.replace(file)
