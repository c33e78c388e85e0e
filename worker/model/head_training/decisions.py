"""Fits a model's heads to what reviewers decided, on the features that came with the items."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from schemas import Decision, ReviewItem
from worker.model.data import DataError
from worker.model.evaluation.statistics import draws
from worker.model.head_training.examples import Examples
from worker.model.head_training.fit import one_thread, predict
from worker.model.head_training.heads import TrainableHeads, streams
from worker.model.head_training.run import Start
from worker.model.head_training.separation import area, separation_loss
from worker.model.kin import kin_keys, unite
from worker.scoring.manifest import ModelManifest

FEWEST = 10
"""Of either outcome."""
FOLDS = 5
STEPS = 100
AT_ONCE = 512
"""Items of either outcome that a step looks at, at most, so that many decisions take no longer than some."""
RATE = 5e-3
MARGIN = 0.5
"""Points by which an approved image should score above a rejected one."""
HOLD = 0.3
"""Weight of staying where the live heads are: thresholds of policies were set on their scale."""


@dataclass(frozen=True, slots=True)
class DecidedItems:
    """Items with what their reviewers decided: features, [items, features] each; approved, [items]; `groups`: items
    that share a prompt or an image stay on one side of a split."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]
    approved: NDArray[np.bool_]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.approved)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How often an approved image scores above a rejected one, ties counting half (the area under the ROC curve), on
    items left out of fitting, with the 95 % interval of the difference, for which whole groups are drawn; `moved`: mean
    change of a score, in points."""

    items: int
    approved: int
    rejected: int
    live: float
    refreshed: float
    gain_low: float
    gain_high: float
    moved: float


def labels(decisions: Iterable[Decision]) -> dict[str, bool]:
    """Item id → whether it stands approved.

    An item's records count in the order of their fencing tokens: a resolution holds until the item is reopened or the
    decision is taken back. Where an item never had one, the majority of its votes counts; ties and the rest are
    left out.
    """
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_item.setdefault(decision.item_id, []).append(decision)
    found = {}
    for item, records in by_item.items():
        resolution: str | None = None
        votes: Counter[str] = Counter()
        resolved = False
        for record in sorted(records, key=lambda entry: (entry.fencing_token, entry.decided_at)):
            if record.outcome == "reopen" or record.undoes is not None:
                resolution, votes = None, Counter()
            if record.resolution is not None:
                resolution, resolved = record.resolution, True
            if record.outcome in ("approve", "reject") and record.undoes is None:
                votes[record.outcome] += 1
        if not resolved and votes["approve"] != votes["reject"]:
            resolution = "approve" if votes["approve"] > votes["reject"] else "reject"
        if resolution in ("approve", "reject"):
            found[item] = resolution == "approve"
    return found


def gather(
    manifest: ModelManifest, items: Iterable[ReviewItem], decided: Mapping[str, bool], models: Sequence[str]
) -> tuple[DecidedItems, Counter[str]]:
    """The decided items that carry features of the model's towers, and why others were left out.

    `models`: digests of the models whose features count as this one's. Raises DataError for too few items, and for
    features that are not what the towers give.
    """
    towers = [manifest.tower(manifest.heads.coarse), manifest.tower(manifest.heads.fine)]
    left_out: Counter[str] = Counter()
    rows: dict[str, tuple[list[NDArray[np.float32]], bool, list[tuple[str, str]]]] = {}
    for item in items:
        if item.item_id not in decided:
            left_out["undecided"] += 1
        elif not item.features:
            left_out["without features"] += 1
        elif item.model not in models:
            left_out["judged by another model"] += 1
        else:
            features = [_features(item, tower.name, tower.features) for tower in towers]
            rows[item.item_id] = features, decided[item.item_id], kin_keys(item.prompt, item.content_hash)
    if missing := decided.keys() - rows.keys():
        left_out["decided, but their items are missing or left out"] = len(missing)
    approved = np.array([row[1] for row in rows.values()], dtype=bool)
    for outcome, number in (("approved", int(approved.sum())), ("rejected", int((~approved).sum()))):
        if number < FEWEST:
            reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was left out"
            raise DataError(f"{number} items stand {outcome}, and fitting needs {FEWEST} at least ({reasons})")
    coarse, fine = (np.stack([row[0][index] for row in rows.values()]) for index in (0, 1))
    groups = tuple(map(str, unite([row[2] for row in rows.values()])))
    return DecidedItems(coarse, fine, approved, groups), left_out


def refresh(start: Start, decided: DecidedItems, seed: int) -> TrainableHeads:
    """New heads: the live ones, moved until approved images score above rejected ones, and no further than that.

    Each step draws items of either outcome, which draws pairs evenly.
    """
    heads = start.heads(seed)
    examples = _examples(start, decided)
    with torch.no_grad():
        live = heads(examples.coarse, examples.fine)
    optimiser = torch.optim.Adam(heads.parameters(), lr=RATE, weight_decay=1e-3)
    heads.train()
    approved = examples.scores > 0
    sides = [torch.nonzero(side).flatten() for side in (approved, ~approved)]
    draw = torch.Generator().manual_seed(seed)
    with one_thread():
        for _ in range(STEPS):
            rows = torch.cat([side[torch.randperm(len(side), generator=draw)[:AT_ONCE]] for side in sides])
            judged = heads(examples.coarse[rows], examples.fine[rows])
            held = torch.nn.functional.mse_loss(judged, live[rows])
            loss = separation_loss(judged, approved[rows], MARGIN) + HOLD * held
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return heads.eval()


def compare(start: Start, decided: DecidedItems, seed: int) -> Comparison:
    """Live and refreshed heads on items that these refreshed heads did not see, by folds of whole groups."""
    live = predict(start.heads(seed), _examples(start, decided))
    names = np.array(decided.groups)
    order = np.random.default_rng(seed).permutation(sorted(set(decided.groups)))
    refreshed = np.empty(len(decided))
    for fold in range(FOLDS):
        left_out = np.isin(names, order[fold::FOLDS])
        known = _rows(decided, ~left_out)
        if known.approved.all() or not known.approved.any():
            raise DataError("one prompt or image makes up nearly all items of one outcome; gather more decisions")
        refreshed[left_out] = predict(refresh(start, known, seed), _examples(start, _rows(decided, left_out)))
    gains = []
    for rows in draws(decided.groups, seed):
        drawn = decided.approved[rows]
        if 0 < drawn.sum() < len(rows):
            gains.append(area(refreshed[rows], drawn) - area(live[rows], drawn))
    low, high = np.quantile(gains, (0.025, 0.975))
    approved = int(decided.approved.sum())
    return Comparison(
        len(decided),
        approved,
        len(decided) - approved,
        area(live, decided.approved),
        area(refreshed, decided.approved),
        float(low),
        float(high),
        float(np.abs(refreshed - live).mean()),
    )


def _examples(start: Start, decided: DecidedItems) -> Examples:
    heads = start.manifest.heads
    coarse, fine = streams(start.manifest, {heads.coarse: decided.coarse, heads.fine: decided.fine})
    return Examples(coarse, fine, torch.from_numpy(decided.approved.astype(np.float32)))


def _rows(decided: DecidedItems, mask: NDArray[np.bool_]) -> DecidedItems:
    groups = tuple(group for group, taken in zip(decided.groups, mask, strict=True) if taken)
    return DecidedItems(decided.coarse[mask], decided.fine[mask], decided.approved[mask], groups)


def _features(item: ReviewItem, tower: str, size: int) -> NDArray[np.float32]:
    data = item.features.get(tower)
    if data is None:
        raise DataError(f"item {item.item_id}: no features of tower {tower!r}; it has {sorted(item.features)}")
    if len(data) != 2 * size:
        raise DataError(
            f"item {item.item_id}: features of tower {tower!r} are {len(data)} bytes, expected {2 * size}: "
            f"{size} of float16"
        )
    row = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(row).all():
        raise DataError(f"item {item.item_id}: features of tower {tower!r} hold values that are not finite")
    return row
