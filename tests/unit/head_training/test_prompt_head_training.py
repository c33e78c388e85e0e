"""Prompt heads: learned, written, served and measured, on a small model of our own."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from tests.unit.trt_build.towers import FEATURES, TOKEN_FEATURES, write_model as write_tiny  # noqa: E402, I001
from worker.cli.main import app  # noqa: E402
from worker.model.data import Example  # noqa: E402
from worker.model.evaluation import text_features  # noqa: E402
from worker.model.evaluation.text_features import compute_text, judge_prompts  # noqa: E402
from worker.model.head_training.examples import Examples, Texts  # noqa: E402
from worker.model.head_training.fit import Recipe, fit, predict  # noqa: E402
from worker.model.head_training.result import write_model  # noqa: E402
from worker.model.head_training.run import Start, train_prompt_head  # noqa: E402
from worker.model.metrics import srcc  # noqa: E402
from worker.scoring.model import load_model  # noqa: E402

FAST = Recipe(epochs=60, batch=32, rate=1e-2)
PROMPTS = tuple(f"prompt {letter}" for letter in "abcdefgh")


@pytest.fixture
def start(tmp_path: Path) -> Start:
    folder = write_tiny(tmp_path / "tiny", prompts=True)
    return Start(load_model(str(folder)).manifest, folder, keep_fusion=False)


def images_beside_prompts(number: int, seed: int) -> Examples:
    """What fits one half of the prompts is what does not fit the other: the image alone tells nothing."""
    draw = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.randn(number, FEATURES, generator=draw) for _ in range(2))
    of = torch.randint(len(PROMPTS), (number,), generator=draw)
    words = torch.Generator().manual_seed(0)
    tokens = [torch.randn(3 + prompt % 3, TOKEN_FEATURES, generator=words) for prompt in range(len(PROMPTS))]
    side = 1 - 2 * (of % 2)
    return Examples(coarse, fine, 3 + 1.5 * torch.tanh(side * coarse[:, 0]), Texts(tokens, of))


def test_a_prompt_head_learns_what_only_image_and_prompt_together_tell(start: Start) -> None:
    known, unknown = images_beside_prompts(480, 1), images_beside_prompts(200, 2)
    fitted = fit(start.prompt_head(1), known, FAST)

    assert srcc(predict(fitted.heads, unknown), unknown.scores.numpy()) > 0.6
    assert unknown.texts is not None
    others = replace(unknown, texts=replace(unknown.texts, of=(unknown.texts.of + 1) % len(PROMPTS)))
    assert srcc(predict(fitted.heads, others), unknown.scores.numpy()) < -0.4


def test_the_prompt_head_that_serving_runs_and_the_one_that_trains_judge_alike(start: Start, tmp_path: Path) -> None:
    head = start.prompt_head(3)
    torch.nn.init.constant_(head.head.alpha, 0.7)
    made = write_model(
        start, start.heads(1), tmp_path / "new", version="2", training_data=(), prompts={"quality": head.eval()}
    )
    assert made.prompt is not None
    assert made.prompt.scores == ("correspondence", "quality")
    assert made.digest != start.manifest.digest

    new, old = load_model(str(tmp_path / "new")), load_model(str(start.folder))
    assert new.prompt is not None
    assert old.prompt is not None
    text = compute_text(new.prompt, PROMPTS, tmp_path / "cache")
    random = np.random.default_rng(0)
    features = {name: random.normal(size=(8, FEATURES)).astype(np.float32) for name in ("coarse", "fine")}
    served = judge_prompts(new.prompt, features, PROMPTS, text)

    tokens = Texts([torch.from_numpy(text[prompt]) for prompt in PROMPTS], torch.arange(8))
    examples = Examples(*(torch.from_numpy(features[name]) for name in ("coarse", "fine")), torch.zeros(8), tokens)
    np.testing.assert_allclose(served[:, 1], predict(head, examples), atol=1e-4)
    # A score that was not trained anew stays as it was.
    np.testing.assert_array_equal(served[:, :1], judge_prompts(old.prompt, features, PROMPTS, text))


def test_a_model_whose_prompt_head_was_never_trained_gets_one(start: Start, tmp_path: Path) -> None:
    manifest = json.loads((start.folder / "manifest.json").read_text())
    del manifest["prompt"]["heads"], manifest["prompt"]["scores"]
    (start.folder / "manifest.json").write_text(json.dumps(manifest))
    new = Start(load_model(str(start.folder)).manifest, start.folder, keep_fusion=True)
    made = write_model(
        new, new.heads(1), tmp_path / "new", version="2", training_data=(), prompts={"quality": new.prompt_head(1)}
    )

    assert made.prompt is not None
    assert made.prompt.scores == ("quality",)
    assert load_model(str(tmp_path / "new")).judging_prompts is not None


def test_a_model_refreshed_without_prompts_keeps_its_prompt_head(start: Start, tmp_path: Path) -> None:
    made = write_model(start, start.heads(1), tmp_path / "new", version="2", training_data=())

    assert made.prompt == start.manifest.prompt
    assert load_model(str(tmp_path / "new")).judging_prompts is not None


def test_only_images_that_were_rated_beside_their_prompt_are_learned_from(start: Start, tmp_path: Path) -> None:
    examples = images_beside_prompts(64, 1)
    assert examples.texts is not None
    numbers = examples.texts.of.tolist()
    rated = [
        Example(Path(f"{n}.png"), 2.0, "made", PROMPTS[prompt], "g", PROMPTS[prompt], float(examples.scores[n]))
        for n, prompt in enumerate(numbers)
    ]
    for n in range(0, 64, 4):
        rated[n] = replace(rated[n], alignment=None)
    text = {prompt: tokens.numpy() for prompt, tokens in zip(PROMPTS, examples.texts.tokens, strict=True)}
    features = {"coarse": examples.coarse.numpy(), "fine": examples.fine.numpy()}
    outcome = train_prompt_head(start, "correspondence", rated, features, text, replace(FAST, epochs=2), 4, tmp_path)

    assert outcome.evaluation.agreement.images == 48
    assert len(outcome.evaluation.human) == 48
    assert outcome.evaluation.human[0] == pytest.approx(float(examples.scores[1]))


def test_prompts_seen_before_are_not_run_again(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = load_model(str(start.folder)).prompt
    assert prompt is not None
    first = compute_text(prompt, ["a cat", "a dog", "a cat"], tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the text tower was opened")

    monkeypatch.setattr(text_features, "OpenVinoText", refuse)
    again = compute_text(prompt, ["A DOG", "a cat"], tmp_path)
    np.testing.assert_array_equal(again["A DOG"], first["a dog"])
    np.testing.assert_array_equal(again["a cat"], first["a cat"])


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Images in colours, named by half of the prompts as they are."""
    rows = []
    for n, (prompt, (name, colour)) in enumerate(
        (prompt, pair) for prompt in ("red", "blue", "a red one", "all blue") for pair in COLOURS.items()
    ):
        Image.new("RGB", (40, 40 + n), colour).save(tmp_path / f"{n}.png")  # of other sizes, so that none is a copy
        rows.append((f"{n}.png", 1 + n % 5, prompt, 5 if name in prompt else 1, name))
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos", "prompt", "align", "group"), *rows])
    return tmp_path / "scores.csv"


COLOURS = {"red": (200, 10, 10), "blue": (10, 10, 200), "dark": (1, 1, 1), "pale": (220, 220, 220)}


def test_train_and_evaluate_tell_how_well_images_fit_their_prompts(start: Start, table: Path, tmp_path: Path) -> None:
    cache = ("--cache", tmp_path / "cache")
    trained = sluice(
        "train", "--data", table, "--model", start.folder, "--to", tmp_path / "run", "--folds", 2, "--epochs", 2, *cache
    )
    assert trained.exit_code == 0, trained.output
    assert "correspondence beside a prompt" in trained.output
    model = load_model(str(tmp_path / "run" / "model")).manifest
    assert [measured.score for measured in model.quality] == ["quality", "correspondence"]
    assert "Correspondence: how well images fit" in (tmp_path / "run" / "report.html").read_text()
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["prompt_heads"]["correspondence"]["agreement"]["images"] == 16

    measured = sluice(
        "evaluate", tmp_path / "run" / "model", "--data", table, "--json", tmp_path / "e.json", "--report",
        tmp_path / "e.html", *cache,
    )  # fmt: skip
    assert measured.exit_code == 0, measured.output
    found = json.loads((tmp_path / "e.json").read_text())
    assert {image["human"] for image in found["correspondence"]["images"]} == {1, 5}
    assert len({image["predicted"] for image in found["correspondence"]["images"]}) > 4
    assert "Correspondence: how well images fit" in (tmp_path / "e.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "mst-lite", "--prompt-head", "correspondence"), "mst-lite has no text tower"),
        (("--prompt-head", "beauty"), "a prompt head predicts quality or correspondence"),
    ],
)
def test_a_prompt_head_that_cannot_be_trained_is_refused_in_words(
    arguments: tuple[str, ...], words: str, start: Start, table: Path, tmp_path: Path
) -> None:
    model = () if "--model" in arguments else ("--model", start.folder)
    done = sluice("train", "--data", table, *model, "--to", tmp_path / "run", "--folds", 2, *arguments)

    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")


def test_a_prompt_head_without_ratings_is_refused_in_words(start: Start, table: Path, tmp_path: Path) -> None:
    with table.open() as file:
        rows = [row[:3] + row[4:] for row in csv.reader(file)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    done = sluice(
        "train", "--data", table, "--model", start.folder, "--to", tmp_path / "run", "--folds", 2,
        "--prompt-head", "correspondence",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "no image of the data has a prompt and a value in the column align" in done.stderr.replace("\n", " ")
