"""Nobody is judged by a network that has seen its kin."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.model.data import Example, split_folds
from worker.model.evaluate import cross_validate, leave_generators_out, report

GENERATORS = ("glide", "sd1.5", "camera")


def make_examples() -> list[Example]:
    return [
        Example(Path(f"{prompt}-{name}.jpg"), 1 + (prompt * 7 + index) % 5 * 0.9, "agiqa3k", f"prompt {prompt}", name)
        for prompt in range(40)
        for index, name in enumerate(GENERATORS)
    ]


def test_every_image_is_judged_once_by_who_saw_none_of_its_prompt() -> None:
    examples = make_examples()
    judged: list[int] = []

    def predict(known: NDArray[np.intp], left_out: NDArray[np.intp]) -> NDArray[np.float64]:
        assert not {examples[row].group for row in known} & {examples[row].group for row in left_out}
        assert len(known) + len(left_out) == len(examples)
        judged.extend(left_out)
        return left_out.astype(np.float64)

    predicted = cross_validate(examples, split_folds(examples, 5, seed=1), predict)
    assert sorted(judged) == list(range(len(examples)))
    assert predicted.tolist() == list(range(len(examples)))


def test_a_generator_left_out_is_in_no_training_nor_are_its_judged_prompts() -> None:
    examples = make_examples()

    def predict(known: NDArray[np.intp], left_out: NDArray[np.intp]) -> NDArray[np.float64]:
        [name] = {examples[row].generator for row in left_out}
        assert name not in {examples[row].generator for row in known}
        assert not {examples[row].group for row in known} & {examples[row].group for row in left_out}
        return np.array([examples[row].score for row in left_out])

    result = leave_generators_out(examples, split_folds(examples, 5, seed=1), predict)
    assert set(result) == {"glide", "sd1.5"}
    assert all(value > 0.999 for value in result.values())


def test_a_report_knows_a_perfect_judge_and_has_no_baseline_for_a_single_generator() -> None:
    examples = make_examples()
    folds = split_folds(examples, 5, seed=1)
    scores = np.array([example.score for example in examples])
    perfect = report("agiqa3k", examples, folds, scores, seed=0)
    assert (round(perfect.srcc, 6), round(perfect.plcc, 6), perfect.rmse, perfect.images) == (1, 1, 0, 120)
    assert perfect.baseline_srcc is not None
    cameras = [example for example in examples if example.generator == "camera"]
    lone = report("agiqa3k", cameras, folds[: len(cameras)], scores[: len(cameras)], seed=0)
    assert lone.baseline_srcc is lone.baseline_plcc is lone.srcc_within_generator is None
