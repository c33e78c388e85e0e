"""Nothing that gives a score away lies on both sides of a split."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.data import DataError, Example, split_folds
from worker.model.kin import join_kin, unite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def example(folder: Path, name: str, content: str, prompt: str = "", group: str = "", dataset: str = "one") -> Example:
    (folder / name).write_text(content)
    return Example(folder / name, 3, dataset, group or prompt or name, "g", prompt)


def test_an_image_under_two_names_and_prompts_binds_both_prompts(folder: Path) -> None:
    found = join_kin(
        [
            example(folder, "a.png", "same", "a cat"),
            example(folder, "b.png", "else", "a cat"),
            example(folder, "c.png", "SAME", "a fox"),  # of the same size, and another image
            example(folder, "d.png", "same", "a dog"),
            example(folder, "e.png", "more", "a dog", dataset="two"),
        ]
    )

    assert [each.group for each in found.examples] == ["a cat", "a cat", "a fox", "a cat", "a cat"]
    assert [each.prompt for each in found.examples] == ["a cat", "a cat", "a fox", "a dog", "a dog"]
    assert (found.copies, found.before, found.after) == (1, 3, 2)


def test_prompts_of_the_same_words_are_one(folder: Path) -> None:
    found = join_kin(
        [
            example(folder, "a.png", "1", "A red  bridge", group="1.jpg A red  bridge"),
            example(folder, "b.png", "22", "a red bridge ", group="2.jpg a red bridge"),
            example(folder, "c.png", "333"),
            example(folder, "d.png", "4444"),
        ]
    )

    assert [each.group for each in found.examples] == ["1.jpg A red  bridge", "1.jpg A red  bridge", "c.png", "d.png"]
    assert (found.copies, found.before, found.after) == (0, 4, 3)


def test_without_copies_every_split_stays_as_it_was(folder: Path) -> None:
    examples = [example(folder, f"{n}.png", str(n), f"prompt {n // 3}", dataset=f"set {n % 2}") for n in range(60)]
    found = join_kin(examples)

    assert found.examples == examples
    assert split_folds(found.examples, 5, seed=1) == split_folds(examples, 5, seed=1)


def test_an_image_that_is_gone_is_named(folder: Path) -> None:
    lost = example(folder, "a.png", "1")
    lost.image.unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read: No such file"):
        join_kin([lost])


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=25))
def test_rows_are_united_exactly_where_keys_lead_from_one_to_the_other(keys: Sequence[Sequence[int]]) -> None:
    found = unite(keys)

    for row in range(len(keys)):
        reached, edge = {row}, {row}
        while edge:
            edge = {n for n in range(len(keys)) for known in edge if set(keys[n]) & set(keys[known])} - reached
            reached |= edge
        assert found[row] == min(reached)
