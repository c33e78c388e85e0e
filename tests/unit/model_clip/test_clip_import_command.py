"""`sluice model import` putting a model together from the paper's checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

from worker.cli.main import app  # noqa: E402
from worker.scoring.model import load_model  # noqa: E402


@pytest.fixture
def checkpoints(make_reference: Callable[..., Any], tmp_path: Path) -> dict[str, Path]:
    """One with a template head, one with both, one with a prompt head, on the same towers."""
    state = make_reference("prompt").state_dict()
    towers = {name: value for name, value in state.items() if not name.startswith("head.")}
    temperature = {"head.temperature": torch.tensor(90.0)}
    files = {}
    for name, tensors in (("template", towers | temperature), ("both", state | temperature), ("prompt", state)):
        files[name] = tmp_path / f"{name}.pt"
        torch.save(tensors, files[name])
    return files


def import_model(*arguments: object) -> Result:
    pair = ("--coarse", "sluice-test-32", "--fine", "sluice-test-16")
    return CliRunner().invoke(app, ["model", "import", *map(str, arguments), *pair])


def test_a_model_is_put_together_from_checkpoints_on_the_same_towers(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    made = import_model(
        checkpoints["both"], "--prompt-head", "quality", "--correspondence", checkpoints["prompt"], "--to", folder
    )
    assert made.exit_code == 0, made.output
    assert "with a prompt: quality and correspondence by the prompt head" in made.output
    prompt = load_model(str(folder)).manifest.prompt
    assert prompt is not None
    assert prompt.scores == ("quality", "correspondence")


def test_two_heads_for_one_score_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    made = import_model(checkpoints["both"], "--correspondence", checkpoints["prompt"], "--to", tmp_path / "model")

    assert made.exit_code == 2
    assert "cannot predict correspondence too; --prompt-head says" in made.stderr.replace("\n", " ")
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_without_a_prompt_head_cannot_tell_a_score(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    made = import_model(checkpoints["template"], "--quality", checkpoints["template"], "--to", tmp_path / "model")

    assert made.exit_code == 2
    assert "has no prompt head (head.cross_attn.*)" in made.stderr.replace("\n", " ")
