"""The losses on batches worked out by hand."""

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from worker.model.losses import damage_loss, quality_loss, ranking_loss  # noqa: E402


def test_pairs_in_order_and_apart_cost_nothing() -> None:
    assert ranking_loss(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])).item() == 0


def test_a_reversed_pair_costs_its_distance_and_the_margin() -> None:
    assert ranking_loss(torch.tensor([2.0, 1.5]), torch.tensor([1.0, 4.0])).item() == pytest.approx(0.6)


def test_the_mean_is_over_pairs_that_differ() -> None:
    loss = ranking_loss(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 2.0, 3.0]))
    assert loss.item() == pytest.approx(0.1)


def test_a_batch_without_a_differing_pair_costs_nothing() -> None:
    assert ranking_loss(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])).item() == 0


def test_closeness_and_order_add_up() -> None:
    predicted, target = torch.tensor([2.0, 1.5]), torch.tensor([1.0, 4.0])
    # smooth L1 with beta 0.5: |d| - 0.25 for both
    assert quality_loss(predicted, target).item() == pytest.approx((0.75 + 2.25) / 2 + 0.6)


def test_damage_that_costs_enough_costs_no_loss() -> None:
    intact, mild, worse, target = (torch.tensor([value]) for value in (4.0, 3.85, 3.55, 4.0))
    assert damage_loss(intact, mild, worse, target).item() == pytest.approx(0, abs=1e-6)


def test_damage_that_costs_too_little_costs_what_is_missing() -> None:
    # A target of 4 is worth 3: mild damage should cost 0.15, worse 0.3 more. Here 0.05 and nothing.
    intact, mild, worse, target = (torch.tensor([value]) for value in (4.0, 3.95, 3.95, 4.0))
    assert damage_loss(intact, mild, worse, target).item() == pytest.approx(0.1 + 0.3)


def test_an_image_at_the_bottom_need_not_fall_further() -> None:
    bottom = torch.tensor([1.0])
    assert damage_loss(bottom, bottom, bottom, bottom).item() == 0
