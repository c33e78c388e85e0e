"""Rows with a prompt, through the CPU engine and the heads, on a small model of our own."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.trt_build.towers import CONTEXT, SIZE, TOKEN_FEATURES, byte_tokenizer, write_model
from worker.scoring.engine import PROMPT, EngineError
from worker.scoring.manifest import ManifestError, load_manifest
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.prompts import TextFeatures
from worker.scoring.token_ids import TokenIds
from worker.scoring.tokenizer import ClipTokenizer

PROMPTS = ("a cat", None, "a dog", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), prompts=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(str(folder))


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[OpenVinoEngine]:
    engine = OpenVinoEngine(model, threads=1, precision="f32")
    yield engine
    engine.close()


def pixels(batch: int) -> dict[str, NDArray[np.uint8]]:
    one = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    return {"whole": np.repeat(one, batch, axis=0)}


def test_one_image_corresponds_differently_to_two_prompts_and_without_one_it_is_not_told(
    engine: OpenVinoEngine, model: Model
) -> None:
    cat, none, dog, empty = model.heads.score(engine.infer(pixels(4), PROMPTS))

    assert cat.correspondence is not None
    assert dog.correspondence is not None
    assert abs(cat.correspondence - dog.correspondence) > 1e-3
    assert none.correspondence is empty.correspondence is None
    assert len({round(each.quality, 6) for each in (cat, none, dog, empty)}) == 1


def test_a_prompt_scores_the_same_alone_and_beside_longer_ones(engine: OpenVinoEngine) -> None:
    alone = engine.infer(pixels(1), ["cat"])[PROMPT][0]
    together = engine.infer(pixels(2), ["cat", "a prompt that is longer than the whole context"])[PROMPT][0]

    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_without_prompts_there_are_no_prompt_scores(engine: OpenVinoEngine) -> None:
    assert PROMPT not in engine.infer(pixels(2))
    assert np.isnan(engine.infer(pixels(2), [None, None])[PROMPT]).all()


def test_a_model_without_a_prompt_head_ignores_prompts(tmp_path: Path) -> None:
    engine = OpenVinoEngine(load_model(str(write_model(tmp_path))), threads=1)
    try:
        assert set(engine.infer(pixels(1), ["a cat"])) == {"coarse", "fine"}
    finally:
        engine.close()


def test_a_prompt_head_that_was_never_trained_judges_nothing(tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts=True)
    change(folder, lambda manifest: (manifest["prompt"].pop("heads"), manifest["prompt"].pop("scores")))
    model = load_model(str(folder))
    engine = OpenVinoEngine(model, threads=1)
    try:
        assert set(engine.infer(pixels(1), ["a cat"])) == {"coarse", "fine"}
    finally:
        engine.close()
    assert model.prompt is not None
    assert not model.manifest.judges_prompts


def test_another_number_of_prompts_than_images_is_refused(engine: OpenVinoEngine) -> None:
    with pytest.raises(EngineError, match="1 prompts for 2 images"):
        engine.infer(pixels(2), ["a cat"])


def test_quality_beside_a_prompt_takes_the_place_of_the_template_heads(tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts=True)
    change(folder, lambda manifest: manifest["prompt"].update(scores=["quality", "correspondence"]))
    with pytest.raises(ManifestError, match=r"no tensor quality\.gff\.W_h"):
        load_model(str(folder))

    heads = load_model(str(write_model(tmp_path / "plain", prompts=True))).heads
    heads._prompt_scores = ("quality", "correspondence")
    features = {name: np.ones((2, 16), np.float32) for name in ("coarse", "fine")}
    prompted, plain = heads.score({**features, PROMPT: np.array([[7.0, 2.5], [np.nan, np.nan]], np.float32)})
    assert (prompted.quality, prompted.correspondence) == (5.0, 2.5)
    assert prompted.anchors is prompted.coarse_share is None
    assert plain == heads.score(features)[1]


class Tower:
    """A text tower that counts what it is asked; a token's features are its id."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.broken = False

    def __call__(self, ids: TokenIds) -> Any:
        self.asked.append(len(ids))
        if self.broken:
            raise EngineError("out of memory")
        return np.repeat(ids[..., None].astype(np.float32), TOKEN_FEATURES, axis=2)


def text_features(tower: Tower, **options: Any) -> TextFeatures:
    tokenize = ClipTokenizer.read("tokenizer.json", byte_tokenizer()[0], CONTEXT)
    return TextFeatures(tokenize, tower, **{"largest": 4, **options})


def shapes(rows: Sequence[Any]) -> list[tuple[int, ...]]:
    return [row.shape for row in rows]


def test_a_prompt_runs_through_the_text_tower_once_however_many_images_it_made() -> None:
    tower = Tower()
    features = text_features(tower)

    assert shapes(features(["cat", "dog", "cat"])) == [(5, TOKEN_FEATURES)] * 3
    features(["CAT", "  dog\n", "horse"])  # what the tokenizer makes one is one
    assert tower.asked == [2, 1]


def test_more_prompts_than_the_tower_takes_are_run_in_turn() -> None:
    tower = Tower()
    texts = [chr(ord("a") + number) for number in range(10)]
    rows = text_features(tower)(texts)

    assert tower.asked == [4, 4, 2]
    assert len({float(row[1, 0]) for row in rows}) == 10


def test_the_prompts_longest_unused_are_forgotten_first() -> None:
    tower = Tower()
    features = text_features(tower, cache_bytes=2 * 5 * TOKEN_FEATURES * 4)  # two prompts of three letters
    for texts in (["cat"], ["dog"], ["cat"], ["cow"], ["cat"], ["dog"]):
        features(texts)
    assert tower.asked == [1, 1, 1, 1]  # cat, dog, cow, and dog again


def test_a_text_tower_that_failed_is_asked_again() -> None:
    tower = Tower()
    features = text_features(tower)
    tower.broken = True
    with pytest.raises(EngineError, match="out of memory"):
        features(["cat"])
    tower.broken = False
    assert shapes(features(["cat"])) == [(5, TOKEN_FEATURES)]


def change(folder: Path, edit: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["text.onnx", "tokenizer.json", "prompt.safetensors"])
def test_a_damaged_file_of_the_prompt_head_is_refused_by_name(file: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts=True)
    (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    with pytest.raises(ManifestError, match=file):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda manifest: manifest["prompt"].pop("heads"), "heads and scores must be set together"),
        (lambda manifest: manifest["prompt"].update(scores=[]), "heads and scores must be set together"),
        (lambda manifest: manifest["prompt"].update(scores=["quality", "quality"]), "each may appear once"),
        (lambda manifest: manifest["towers"][0].update(name="prompt"), "rename the tower"),
        (lambda manifest: manifest["prompt"].update(features=9), "attention.key.weight"),
        (lambda manifest: manifest["prompt"]["text"].update(opset=17), "uses opset 18"),
    ],
)
def test_a_manifest_that_does_not_fit_its_prompt_head_is_refused(edit: Any, words: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts=True)
    change(folder, edit)
    with pytest.raises(ManifestError, match=words):
        load_model(str(folder))


def test_a_text_tower_of_another_context_is_refused_before_it_judges(tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts=True)
    change(folder, lambda manifest: manifest["prompt"].update(context=CONTEXT + 4))
    with pytest.raises(ManifestError, match=r"tokens is i32\[\?,12\], the manifest means i32\[\?,16\]"):
        OpenVinoEngine(load_model(str(folder)), threads=1)


def test_a_model_is_another_with_a_prompt_head_and_the_same_as_ever_without(tmp_path: Path) -> None:
    plain, prompting = (load_manifest(write_model(tmp_path / str(on), prompts=on)) for on in (False, True))

    assert plain.digest != prompting.digest
    # Verdicts and caches name models by digests from before there were prompt heads.
    fields = json.loads(plain.model_dump_json(by_alias=True))
    old = {name: value for name, value in fields.items() if name not in ("parity", "precision", "prompt")}
    canonical = json.dumps(old, sort_keys=True, separators=(",", ":")).encode()
    assert plain.digest == f"sha256:{hashlib.sha256(canonical).hexdigest()}"
