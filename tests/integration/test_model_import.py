"""`sluice model import` as a user runs it, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")

pytestmark = pytest.mark.timeout(1200)  # towers of the real size, several times, on a machine that may be busy

MODULE = [sys.executable, "-c", "from worker.cli.main import app; app()"]


def sluice(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MODULE, *map(str, arguments)], capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's network with random weights, of the real shapes, with both heads."""
    import torch
    from torch import nn
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(4)
    linears = {"W_h": (1024, 128), "W_g": (128, 512), "W_c": (512, 512), "W_f": (512, 512)}
    state = {f"gff.{n}.{k}": v for n, s in linears.items() for k, v in nn.Linear(*s).state_dict().items()}
    state["head.temperature"] = torch.tensor(100.0)
    state |= {f"head.cross_attn.{k}": v for k, v in nn.MultiheadAttention(512, 8).state_dict().items()}
    linears = {"W_1": (512, 512), "W_2": (512, 512), "w_o": (512, 1)}
    state |= {f"head.{n}.{k}": v for n, s in linears.items() for k, v in nn.Linear(*s).state_dict().items()}
    state["head.alpha"] = torch.tensor(0.5)
    for stream, patch in (("coarse", 32), ("fine", 16)):
        clip = CLIPModel(CLIPConfig(vision_config={"patch_size": patch}))
        state |= {f"mstfe.encoder_{stream}.{key}": value for key, value in clip.state_dict().items()}
    file = tmp_path_factory.mktemp("checkpoint") / "paper.pt"
    torch.save(state, file)
    return file


def test_an_imported_checkpoint_is_a_model_that_scores_images(checkpoint: Path, tmp_path: Path) -> None:
    made = sluice("model", "import", checkpoint, "--to", tmp_path / "model", "--trained-on", "AGIQA-1K")
    assert made.returncode == 0, made.stderr
    assert "mst-clip 1, sha256:" in made.stdout

    shown = sluice("model", "show", tmp_path / "model")
    assert "512 features of view image" in shown.stdout
    assert "AGIQA-1K" in shown.stdout
    assert "correspondence, of 77 tokens" in shown.stdout

    sample = next(Path("worker/samples/images").glob("*.jpg"))
    scored = sluice("score", sample, "--model", tmp_path / "model", "--output", tmp_path / "scores.jsonl")
    assert scored.returncode == 0, scored.stderr
    assert 1 <= json.loads((tmp_path / "scores.jsonl").read_text())["quality"] <= 5

    again = sluice("model", "import", checkpoint, "--to", tmp_path / "model")
    assert again.returncode == 2
    assert "already holds a model" in again.stderr


def test_a_checkpoint_of_other_towers_is_refused_with_key_and_shape(checkpoint: Path, tmp_path: Path) -> None:
    made = sluice("model", "import", checkpoint, "--to", tmp_path / "m", "--coarse", "ViT-B-16-quickgelu")

    assert made.returncode == 2
    assert "mstfe.encoder_coarse.vision_model.embeddings" in made.stderr
    assert "expected [" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (tmp_path / "m").exists()
