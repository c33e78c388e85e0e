import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from worker.model.data import DataError, Example  # noqa: E402
from worker.model.head_training.examples import Examples  # noqa: E402
from worker.model.head_training.fit import Epoch, Recipe, fit, predict  # noqa: E402
from worker.model.head_training.heads import heads_of  # noqa: E402
from worker.model.head_training.report import loss_chart  # noqa: E402
from worker.model.head_training.result import write_model  # noqa: E402
from worker.model.head_training.run import Start, train  # noqa: E402
from worker.model.metrics import srcc  # noqa: E402
from worker.scoring.manifest import load_manifest  # noqa: E402
from worker.scoring.model import find_model, load_model  # noqa: E402

PATH = find_model("mst-lite")
MANIFEST = load_manifest(PATH)
START = Start(MANIFEST, PATH.parent, keep_fusion=False)
FAST = Recipe(epochs=6, batch=32, rate=2e-3)


def learnable(number: int = 160, seed: int = 3) -> Examples:
    """Scores that follow from a direction of the coarse features and one of the fine ones."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [MANIFEST.tower(name).features for name in ("coarse", "fine")]
    coarse, fine = (torch.randn(number, size, generator=draw) for size in sizes)
    shown = torch.rand(number, generator=draw) * 4 + 1
    coarse[:, :8] += shown[:, None] - 3
    fine[:, :8] += shown[:, None] - 3
    return Examples(coarse, fine, shown)


def test_the_heads_that_serving_runs_and_the_ones_that_train_judge_alike() -> None:
    examples = learnable()
    heads = heads_of(MANIFEST, PATH.parent)
    served = load_model("mst-lite").heads.score({"coarse": examples.coarse.numpy(), "fine": examples.fine.numpy()})

    np.testing.assert_allclose([scores.quality for scores in served], predict(heads, examples), atol=1e-4)


def test_training_learns_what_there_is_to_learn() -> None:
    known, unknown = learnable(), learnable(seed=4)
    heads = heads_of(MANIFEST, PATH.parent, fresh_seed=1)
    before = srcc(predict(heads, unknown), unknown.scores.numpy())
    found = fit(heads, known, replace(FAST, epochs=10))
    after = srcc(predict(found.heads, unknown), unknown.scores.numpy())

    assert abs(before) < 0.3
    assert after > 0.6
    assert found.epochs[-1].loss < found.epochs[0].loss
    assert len(found.epochs) == found.best == 10


def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    examples = learnable()
    straight = fit(heads_of(MANIFEST, PATH.parent, fresh_seed=1), examples, FAST)

    class Stopped(Exception):
        pass

    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stopped

    checkpoint = tmp_path / "fold.pt"
    with pytest.raises(Stopped):
        fit(heads_of(MANIFEST, PATH.parent, fresh_seed=1), examples, FAST, checkpoint=checkpoint, advance=stop)
    resumed = fit(heads_of(MANIFEST, PATH.parent, fresh_seed=9), examples, FAST, checkpoint=checkpoint)

    assert len(resumed.epochs) == 6
    assert [epoch.loss for epoch in resumed.epochs] == [epoch.loss for epoch in straight.epochs]
    np.testing.assert_array_equal(predict(resumed.heads, examples), predict(straight.heads, examples))


def test_early_stopping_keeps_the_heads_that_agreed_best() -> None:
    known, noise = learnable(), learnable(60, seed=8)
    noise = replace(noise, scores=noise.scores[torch.randperm(60, generator=torch.Generator().manual_seed(0))])
    recipe = replace(FAST, epochs=40, patience=3)
    found = fit(heads_of(MANIFEST, PATH.parent, fresh_seed=1), known, recipe, validation=noise)
    values = [epoch.validation for epoch in found.epochs]

    assert len(found.epochs) == found.best + 3 < 40
    assert values[found.best - 1] == max(value for value in values if value is not None)
    assert srcc(predict(found.heads, noise), noise.scores.double().numpy()) == pytest.approx(values[found.best - 1])


@pytest.mark.parametrize("wrong", [{"rate": 1e25}, {"weight_decay": float("inf")}])
def test_a_training_that_falls_apart_is_told_with_what_to_lower(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"the loss of epoch \d is (nan|inf); lower --rate \(.*--weight-decay"):
        fit(heads_of(MANIFEST, PATH.parent, fresh_seed=1), learnable(), replace(FAST, **wrong))


def as_examples(examples: Examples) -> list[Example]:
    return [
        Example(Path(f"{n}.png"), float(score), "made", f"prompt {n // 4}", f"g{n % 4}")
        for n, score in enumerate(examples.scores)
    ]


def test_a_run_judges_prompts_it_never_saw_and_writes_a_model_that_serving_loads(tmp_path: Path) -> None:
    examples = learnable(120)
    features = {"coarse": examples.coarse.numpy(), "fine": examples.fine.numpy()}
    outcome = train(START, as_examples(examples), features, replace(FAST, epochs=8), 3, tmp_path)
    made = write_model(START, outcome.final.heads, tmp_path / "model", version="2", training_data=("made",))
    model = load_model(str(tmp_path / "model"))

    assert outcome.evaluation.agreement.srcc.value > 0.3
    assert len(outcome.curves) == 3
    assert outcome.gate == tuple(sorted(outcome.gate))
    assert model.manifest == made
    assert model.manifest.graph == MANIFEST.graph
    assert made.digest != MANIFEST.digest
    served = [scores.quality for scores in model.heads.score(features)]
    np.testing.assert_allclose(served, predict(outcome.final.heads, examples), atol=1e-4)


def test_pure_noise_is_not_learned_across_prompts(tmp_path: Path) -> None:
    """Guards the split: were a prompt on both sides, its four equal images would give its score away. 30 prompts agree
    by chance with a deviation of 0.19, so four draws are averaged."""
    groups = np.arange(120) // 4
    left_out = []
    for seed in range(1, 5):
        draw = np.random.default_rng(seed)
        features = {
            name: draw.normal(size=(30, MANIFEST.tower(name).features)).astype(np.float32)[groups]
            for name in ("coarse", "fine")
        }
        scores = draw.uniform(1, 5, 30)[groups]
        examples = [Example(Path(f"{n}.png"), float(s), "made", f"p{groups[n]}", "g") for n, s in enumerate(scores)]
        (checkpoints := tmp_path / str(seed)).mkdir()
        outcome = train(START, examples, features, FAST, 3, checkpoints)
        left_out.append(outcome.evaluation.agreement.srcc.value)
        learned = Examples(*(torch.from_numpy(features[name]) for name in ("coarse", "fine")), torch.from_numpy(scores))
        assert srcc(predict(outcome.final.heads, learned), scores) > 0.7

    assert abs(np.mean(left_out)) < 0.35


@pytest.mark.parametrize(("folds", "patience"), [(99, None), (2, 3)])
def test_folds_that_cannot_be_are_refused(folds: int, patience: int | None, tmp_path: Path) -> None:
    examples = learnable(40)
    features = {"coarse": examples.coarse.numpy(), "fine": examples.fine.numpy()}

    with pytest.raises(DataError, match="folds of 10 prompts"):
        train(START, as_examples(examples), features, replace(FAST, patience=patience), folds, tmp_path)


@pytest.mark.parametrize("folds", [1, 3, 5, 10, 20])
def test_each_fold_has_a_loss_curve_of_its_own_look(folds: int) -> None:
    lines = loss_chart([[Epoch(2.0, None, 0.1), Epoch(1.0, None, 0.1)] for _ in range(folds)]).lines

    assert [line.name for line in lines] == [f"fold {number}" for number in range(1, folds + 1)]
    assert len({line.colour for line in lines}) == folds
    assert all(one.stroke != other.stroke for one, other in itertools.pairwise(lines))
