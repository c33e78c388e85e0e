"""What make image-test reads in the Dockerfile."""

from ops.dev.image_root import DOCKERFILE, in_order, read_stages


def test_each_target_is_made_from_its_stages_in_their_order() -> None:
    stages = read_stages(DOCKERFILE.read_text())
    assert [stage.name for stage in in_order(stages, "cpu")] == ["runtime", "tools", "wheel", "cpu-packages", "cpu"]
    assert [stage.name for stage in in_order(stages, "desk")] == ["runtime", "tools", "wheel", "desk-packages", "desk"]


def test_continued_lines_and_comments_between_them_make_one_step() -> None:
    stages = read_stages("FROM a AS b\nRUN one \\\n# why\n    && two\nENV X=1\n")
    assert stages["b"].base == "a"
    assert [(word, " ".join(text.split())) for word, text in stages["b"].steps] == [
        ("RUN", "one && two"),
        ("ENV", "X=1"),
    ]
