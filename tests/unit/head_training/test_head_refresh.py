from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from schemas import Decision, ReviewItem, Scores, Source  # noqa: E402
from worker.cli.train_decisions import warn  # noqa: E402
from worker.model.data import DataError  # noqa: E402
from worker.model.head_training.decisions import Comparison, compare, gather, labels, refresh  # noqa: E402
from worker.model.head_training.run import Start  # noqa: E402
from worker.model.head_training.separation import area, separation_loss  # noqa: E402
from worker.model.losses import ranking_loss  # noqa: E402
from worker.scoring.manifest import load_manifest  # noqa: E402
from worker.scoring.model import find_model  # noqa: E402

PATH = find_model("mst-lite")
MANIFEST = load_manifest(PATH)
START = Start(MANIFEST, PATH.parent, keep_fusion=True)
POLICY = "sha256:" + "ab" * 32
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def decision(item: str, outcome: str, token: int = 1, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "decision_id": f"{item}-{token}", "item_id": item, "verdict_id": "v", "event_id": "e", "tenant": "t",
        "queue": "q", "reviewer": "r", "outcome": outcome, "decided_at": NOW + timedelta(seconds=token),
        "fencing_token": token,
    }  # fmt: skip
    return Decision(**values | changes)


def item(name: str, features: dict[str, bytes], **changes: Any) -> ReviewItem:
    values: dict[str, Any] = {
        "item_id": name, "verdict_id": "v", "event_id": "e", "tenant": "t", "queue": "q", "priority": 1,
        "created_at": NOW, "image": None, "content_hash": None, "scores": Scores(quality=2), "rule": "r",
        "features": features, "model": MANIFEST.digest, "policy": POLICY,
        "source": Source(topic="x", partition=0, offset=0),
    }  # fmt: skip
    return ReviewItem(**values | changes)


def test_a_resolution_stands_until_it_is_taken_back() -> None:
    found = labels(
        [
            decision("kept", "approve", 1, resolution="approve"),
            decision("reopened", "reject", 1, resolution="reject"),
            decision("reopened", "reopen", 2),
            decision("turned", "reject", 3, resolution="reject"),
            decision("turned", "approve", 1, resolution="approve"),
            decision("turned", "reopen", 2),
            decision("escalated", "escalate", 1, resolution="escalate"),
            decision("voted", "reject", 1),
            decision("tied", "reject", 1),
            decision("tied", "approve", 2),
            decision("skipped", "skip", 1),
        ]
    )
    assert found == {"kept": True, "turned": False, "voted": False}


@pytest.mark.parametrize("seed", range(4))
def test_all_pairs_are_told_without_making_them(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    scores = (torch.randint(0, 9, (57,), generator=draw) / 3).requires_grad_()  # with ties
    approved = torch.rand(57, generator=draw) > 0.5
    (by_pairs, by_sums) = (ranking_loss(scores, approved.float(), 0.5), separation_loss(scores, approved, 0.5))
    torch.testing.assert_close(by_sums, by_pairs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (by_sums, by_pairs)))

    above, below = scores[approved].detach()[:, None], scores[~approved].detach()[None]
    share = float((above > below).float().mean() + 0.5 * (above == below).float().mean())
    assert area(scores.detach().numpy().astype(float), approved.numpy()) == pytest.approx(share, abs=1e-6)


def traffic(number: int = 120, seed: int = 1) -> Iterator[tuple[ReviewItem, Decision]]:
    """Reviewers approve by a direction of the fine features that the live heads know little of."""
    draw = np.random.default_rng(seed)
    for index in range(number):
        coarse, fine = (
            draw.normal(size=MANIFEST.tower(name).features).astype(np.float16) for name in ("coarse", "fine")
        )
        verdict = "approve" if draw.integers(2) else "reject"
        fine[:16] += np.float16(0.6 if verdict == "approve" else -0.6)
        features = {"coarse": coarse.tobytes(), "fine": fine.tobytes()}
        yield item(f"i{index}", features), decision(f"i{index}", verdict, resolution=verdict)


def gathered(number: int = 120) -> Any:
    items, decisions = zip(*traffic(number), strict=True)
    return gather(MANIFEST, items, labels(decisions), [MANIFEST.digest])[0]


def test_refreshed_heads_agree_with_reviewers_on_items_they_did_not_see() -> None:
    found = compare(START, gathered(), seed=1)

    assert found.items == found.approved + found.rejected == 120
    assert found.live < 0.75
    assert found.refreshed > found.live + 0.1
    assert found.gain_low > 0


def test_decisions_that_follow_no_rule_give_no_certain_gain() -> None:
    items, decisions = zip(*traffic(), strict=True)
    draw = np.random.default_rng(3)
    random = {entry.item_id: bool(draw.integers(2)) for entry in decisions}
    found = compare(START, gather(MANIFEST, items, random, [MANIFEST.digest])[0], seed=1)

    assert found.gain_low < 0.05
    assert found.refreshed < 0.65


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.2, None), (-0.01, 0.2, "the gain is not significant"), (-0.2, -0.01, "do not promote")],
)
def test_what_speaks_against_new_heads_is_said(low: float, high: float, words: str | None) -> None:
    warning = warn(Comparison(80, 40, 40, 0.7, 0.7, low, high, 0.1))
    assert (warning is None) if words is None else (warning is not None and words in warning)


def test_the_same_seed_gives_the_same_heads() -> None:
    decided = gathered(60)
    first, second = (refresh(START, decided, seed=4).state_dict() for _ in range(2))

    assert all((first[name] == second[name]).all() for name in first)


def test_items_that_cannot_be_used_are_counted_by_reason() -> None:
    items, decisions = map(list, zip(*traffic(60), strict=True))
    items[0] = items[0].model_copy(update={"model": POLICY})
    items[1] = items[1].model_copy(update={"features": {}})
    standing = labels(decisions)
    del standing["i2"]
    decided, left_out = gather(MANIFEST, items, standing, [MANIFEST.digest])

    assert len(decided) == 57
    assert left_out["judged by another model"] == left_out["without features"] == left_out["undecided"] == 1
    both, _ = gather(MANIFEST, items, standing, [MANIFEST.digest, POLICY])
    assert len(both) == 58


def test_items_that_share_a_prompt_or_an_image_stay_together() -> None:
    items, decisions = map(list, zip(*traffic(30), strict=True))
    one, other = "sha256:" + "11" * 32, "sha256:" + "22" * 32
    for index, (prompt, content) in enumerate([("a cat", one), ("A  cat", None), ("a dog", one), ("a dog", other)]):
        items[index] = items[index].model_copy(update={"prompt": prompt, "content_hash": content})
    groups = gather(MANIFEST, items, labels(decisions), [MANIFEST.digest])[0].groups

    assert len(set(groups[:4])) == 1
    assert len(set(groups)) == 27


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"coarse": b"\x00" * 1024}, "item i0: no features of tower 'fine'"),
        ({"coarse": b"\x00" * 1024, "fine": b"\x00" * 10}, "features of tower 'fine' are 10 bytes, expected 1024"),
        ({"coarse": b"\x00" * 1024, "fine": b"\x00\x7e" * 512}, "hold values that are not finite"),
    ],
)
def test_features_of_other_towers_are_refused_by_item(features: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        gather(MANIFEST, [item("i0", features)], {"i0": True}, [MANIFEST.digest])


def test_too_few_decisions_are_refused_with_what_was_left_out() -> None:
    items, decisions = zip(*traffic(12), strict=True)
    items = [entry.model_copy(update={"model": POLICY}) for entry in items]

    with pytest.raises(DataError, match=r"0 items stand approved.*10 at least \(12 judged by another model"):
        gather(MANIFEST, items, labels(decisions), [MANIFEST.digest])
