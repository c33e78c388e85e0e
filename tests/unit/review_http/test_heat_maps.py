"""Heat maps at the desk: the map of the right image, made once, for who may see it, and never for too many at once."""

import io
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from desk_clients import browser, signed_in
from stand_in_desk import StandInDesk, review_item

from schemas import FileReference, Scores
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.fetch.file import FileFetcher
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.frame_sheets import SHEET_VIEWS
from worker.review.http.heat_maps import AT_ONCE, Busy, ExplainEngine, HeatMaps, NoEngine
from worker.review.http.images import LOOKS
from worker.review.http.renditions import Renderer
from worker.review.http.roles import Role
from worker.scoring.engine import Features, Prompts, Views
from worker.scoring.model import load_model

PATIENCE = 30.0


class RedHater:
    """An engine whose features are how much of what a stream sees is pure red; `pause` waits in each batch."""

    max_batch = 64

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        self.batches = 0
        self.pause = pause
        self.closed = False

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        def red(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            flat = pixels.reshape(len(pixels), -1, 3)
            return ((flat[..., 0] > 200) & (flat[..., 1] < 50)).mean(axis=1, dtype=np.float32)[:, None]

        self.batches += 1
        self.pause()
        return {"coarse": red(views["whole"]), "fine": red(views["detail"])}

    def close(self) -> None:
        self.closed = True


class Heads:
    def score(self, features: Features) -> list[Scores]:
        return [Scores(quality=float(5 - 4 * fine)) for fine in features["fine"][:, 0]]


MODEL = cast(Any, SimpleNamespace(manifest=load_model("mst-lite").manifest, heads=Heads()))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.full((400, 400, 3), 120, np.uint8)
    pixels[40:120, 280:360] = (255, 0, 0)
    path = tmp_path / "damaged.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def engine() -> RedHater:
    return RedHater()


@pytest.fixture
def heat_maps(tmp_path: Path, engine: RedHater) -> HeatMaps:
    renderer = Renderer(
        FileFetcher((tmp_path,), max_bytes=10_000_000),
        decoder=ThreadDecoder(DecodeLimits(4_000_000), {}),
        frame_decoder=ThreadDecoder(DecodeLimits(4_000_000), SHEET_VIEWS),
        cache_bytes=1_000_000,
        threads=2,
    )
    return HeatMaps(
        renderer, lambda: ExplainEngine(MODEL, engine), lambda own: own.engine.close(), cache_bytes=1_000_000
    )


@pytest.fixture
def client(
    make_context: Callable[..., AppContext], desk: StandInDesk, heat_maps: HeatMaps, picture: Path
) -> TestClient:
    desk.items["item-0"] = review_item("item-0", str(picture))
    return signed_in(make_context(heat_maps=heat_maps), "ana", Role.VIEWER)


def test_the_map_is_red_where_the_damage_is_and_nowhere_else(client: TestClient) -> None:
    answer = client.get("/v1/items/item-0/heat-map").json()
    assert (answer["flat"], answer["model"]) == (False, MODEL.manifest.digest)
    assert answer["same_model"] is False  # another judged the stand-in's items
    shown = client.get(answer["picture"])
    assert shown.headers["content-type"] == "image/jpeg"
    pixels = np.asarray(Image.open(io.BytesIO(shown.content)).convert("RGB"), np.int16)
    redness = pixels[..., 0] - pixels[..., 2]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    height, width = redness.shape
    assert 0.05 < row / height < 0.35
    assert 0.65 < column / width < 0.95
    assert redness[height // 2 :, : width // 2].max() < 30


def test_a_map_is_made_once(client: TestClient, engine: RedHater) -> None:
    first = client.get("/v1/items/item-0/heat-map").json()
    made = engine.batches
    client.get(first["picture"])
    client.get("/v1/items/item-0/heat-map")
    assert engine.batches == made


def test_the_link_is_of_one_person(client: TestClient, make_context: Callable[..., AppContext]) -> None:
    link = client.get("/v1/items/item-0/heat-map").json()["picture"]
    other_door = make_context()
    other = browser(build_app(other_door))
    token, _ = other_door.sessions.open("ben", Role.ADMIN, "local")
    other.cookies.set(other_door.session_cookie, token, domain="127.0.0.1")
    assert other.get(link).status_code == 403


def test_one_person_gets_so_many_a_minute_and_known_ones_for_nothing(
    client: TestClient, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(LOOKS, most=2)
    monkeypatch.setattr("worker.review.http.images.LOOKS", few)
    desk = cast(StandInDesk, client.app.state.context.desk)  # type: ignore[attr-defined]
    for number in range(few.most):
        copy = picture.with_name(f"{number}.png")
        copy.write_bytes(picture.read_bytes())
        desk.items["item-0"] = review_item("item-0", str(copy))
        assert client.get("/v1/items/item-0/heat-map").status_code == 200
    assert client.get("/v1/items/item-0/heat-map").status_code == 200
    desk.items["item-0"] = review_item("item-0", str(picture))
    refused = client.get("/v1/items/item-0/heat-map")
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:sluice:problem:too-many-heat-maps")
    assert int(refused.headers["retry-after"]) > 0


def test_a_desk_without_an_engine_says_so(
    make_context: Callable[..., AppContext], desk: StandInDesk, picture: Path
) -> None:
    desk.items["item-0"] = review_item("item-0", str(picture))
    answer = signed_in(make_context(), "ana", Role.VIEWER).get("/v1/items/item-0/heat-map")
    assert (answer.status_code, answer.json()["type"]) == (501, "urn:sluice:problem:no-engine")
    assert "no model here" in answer.json()["detail"]


def test_an_image_that_is_gone_or_was_exchanged_has_no_map(
    client: TestClient, desk: StandInDesk, picture: Path
) -> None:
    desk.items["item-0"] = review_item("item-0", str(picture)).model_copy(update={"content_hash": "sha256:" + "0" * 64})
    assert client.get("/v1/items/item-0/heat-map").json()["type"] == "urn:sluice:problem:hash-mismatch"
    picture.unlink()
    assert client.get("/v1/items/item-0/heat-map").status_code == 404
    assert client.get("/v1/items/unknown/heat-map").status_code == 404


def test_when_too_many_ask_at_once_the_rest_are_told_to_come_back(
    heat_maps: HeatMaps, engine: RedHater, picture: Path
) -> None:
    go_on, inside = threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        go_on.wait(PATIENCE)

    engine.pause = pause
    reference = FileReference(path=str(picture))
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        try:
            first = pool.submit(heat_maps.make, reference, None)
            assert inside.wait(PATIENCE)
            all_of_them = [pool.submit(heat_maps.make, reference, None) for _ in range(2 * AT_ONCE - 1)]
            done, _ = wait(all_of_them, PATIENCE, return_when=FIRST_COMPLETED)
        finally:
            go_on.set()
        results = [each for each in all_of_them if each.exception(PATIENCE) is None]
        refused = [each for each in all_of_them if isinstance(each.exception(PATIENCE), Busy)]
    assert done <= set(refused)  # while the first was at work, only refusals came back
    assert len(refused) >= 1
    assert len(results) + len(refused) == len(all_of_them)
    assert {id(each.result()) for each in results} <= {id(first.result())}  # who waited got what was made


def test_a_closed_desk_frees_its_engine_and_makes_no_more(heat_maps: HeatMaps, engine: RedHater, picture: Path) -> None:
    reference = FileReference(path=str(picture))
    heat_maps.make(reference, None)
    heat_maps.close()
    assert engine.closed
    other = picture.with_name("other.png")
    other.write_bytes(picture.read_bytes())
    with pytest.raises(NoEngine):
        heat_maps.make(FileReference(path=str(other)), None)
