import numpy as np
import pytest
from numpy.typing import NDArray

from schemas import Scores
from worker.images.views import make_views
from worker.model.explain_picture import SIDE, Words, draw
from worker.scoring.engine import Features, Prompts, Views
from worker.scoring.explain import explain
from worker.scoring.model import load_model

WORDS = Words("a.png", "a model", ("bad", "poor", "fair", "good", "perfect"))


class NoiseHater:
    """An engine whose fine feature is how much of what it sees is pure red; its coarse one likewise."""

    max_batch = 64

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        def red(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            flat = pixels.reshape(len(pixels), -1, 3)
            return ((flat[..., 0] > 200) & (flat[..., 1] < 50)).mean(axis=1, dtype=np.float32)[:, None]

        return {"coarse": red(views["whole"]), "fine": red(views["detail"])}

    def close(self) -> None:
        """Nothing is held."""


class Heads:
    """Quality falls with what the fine stream sees only."""

    def score(self, features: Features) -> list[Scores]:
        return [
            Scores(quality=float(5 - 4 * fine), anchors=(0.1, 0.2, 0.4, 0.2, 0.1), coarse_share=0.25)
            for fine, _ in zip(features["fine"][:, 0], features["coarse"], strict=True)
        ]


class Model:
    manifest = load_model("mst-lite").manifest
    heads = Heads()


def damaged() -> NDArray[np.uint8]:
    pixels = np.full((400, 400, 3), 120, np.uint8)
    pixels[40:120, 280:360] = (255, 0, 0)
    return pixels


def test_the_map_points_at_the_damage_and_nowhere_else() -> None:
    found = explain(Model(), NoiseHater(), damaged(), make_views, cells=10)  # type: ignore[arg-type]
    row, column = np.unravel_index(found.relief.argmax(), found.relief.shape)

    assert (row, column) in {(1, 7), (1, 8), (2, 7), (2, 8)}
    assert found.relief.max() > 0
    assert np.abs(found.relief[5:, :5]).max() == pytest.approx(0, abs=1e-6)


def test_an_image_without_damage_has_a_flat_map() -> None:
    found = explain(Model(), NoiseHater(), np.full((300, 200, 3), 90, np.uint8), make_views)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.relief, 0, atol=1e-6)


def test_every_spot_is_looked_at_once() -> None:
    seen = []
    explain(Model(), NoiseHater(), damaged(), make_views, cells=4, advance=lambda: seen.append(1))  # type: ignore[arg-type]
    assert len(seen) == 16


@pytest.mark.parametrize("shape", [(400, 400), (90, 900), (900, 90), (24, 24)])
def test_the_picture_shows_image_and_map_beside_each_other(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 120, np.uint8)
    pixels[: shape[0] // 3, : shape[1] // 3] = (255, 0, 0)
    found = explain(Model(), NoiseHater(), pixels, make_views)  # type: ignore[arg-type]
    page = np.asarray(draw(pixels, found, WORDS))

    assert page.shape[1] > 2 * SIDE
    reds = (page[..., 0] > 230) & (page[..., 1] < 30)
    assert reds.any()
    assert not reds[:, page.shape[1] // 2 :].any()  # the map is grey and tinted


def test_a_long_name_with_control_characters_does_not_break_the_picture() -> None:
    found = explain(Model(), NoiseHater(), damaged(), make_views, cells=2)  # type: ignore[arg-type]
    draw(damaged(), found, Words("x\n\x1b[2J" * 80, "m", WORDS.anchors))
