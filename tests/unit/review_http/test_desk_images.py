"""Renditions and their links: what a browser gets to see, and who."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_clients import Clock, browser
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from stand_in_desk import StandInDesk, review_item

from schemas import FileReference
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.errors import ImageError
from worker.images.fetch import FetchedImage
from worker.review.http.app_context import AppContext
from worker.review.http.frame_sheets import FRAMES, SHEET_VIEWS, SIDE
from worker.review.http.image_links import LINK_SECONDS, ImageLinks
from worker.review.http.renditions import Renderer, Rendition
from worker.review.http.roles import Role

SignIn = Callable[..., TestClient]


def png(width: int = 64, height: int = 48, comment: str = "") -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    info = PngInfo()
    if comment:
        info.add_text("Comment", comment)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.fixture
def picture(tmp_path: Path, desk: StandInDesk) -> Path:
    """The file of the desk's item `seen`."""
    path = tmp_path / "seen.png"
    path.write_bytes(png(comment="<script>alert(1)</script>"))
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    desk.items["seen"] = review_item("seen", str(path)).model_copy(update={"content_hash": digest})
    desk.status["seen"] = desk.status["item-0"]
    return path


def links(client: TestClient, item_id: str = "seen") -> dict[str, str]:
    found: dict[str, str] = client.get(f"/v1/items/{item_id}").json()["image"]
    return found


def test_every_rendition_is_a_jpeg_made_here(picture: Path, sign_in: SignIn) -> None:
    client = sign_in()
    for name, link in links(client).items():
        answer = client.get(link)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), name
        assert b"script" not in answer.content
        assert answer.headers["x-image-width"] == "64"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.format == "JPEG"


def test_native_keeps_every_pixel_and_blurred_keeps_none(picture: Path, sign_in: SignIn) -> None:
    client = sign_in()
    found = links(client)
    with Image.open(picture) as original, Image.open(io.BytesIO(client.get(found["native"]).content)) as native:
        assert native.size == original.size
        difference = np.abs(np.asarray(native, np.int16) - np.asarray(original, np.int16))
        assert difference.mean() < 8  # JPEG of quality 97, of noise
    with Image.open(io.BytesIO(client.get(found["blurred"]).content)) as blurred:
        assert np.asarray(blurred.convert("L"), np.float32).std() < 25  # the noise has a deviation of 60


def test_an_unchanged_rendition_is_not_sent_again(picture: Path, sign_in: SignIn) -> None:
    client = sign_in()
    link = links(client)["screen"]
    first = client.get(link)
    assert first.headers["cache-control"] == "private, no-cache"
    again = client.get(link, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_link_is_for_one_person_and_for_some_minutes(picture: Path, sign_in: SignIn, clock: Clock) -> None:
    ana, ben = sign_in(user="ana"), sign_in(user="ben")
    link = links(ana)["screen"]
    assert ben.get(link).json()["type"] == "urn:sluice:problem:stale-link"
    address, _, rendition = link.rpartition("/")
    assert ana.get(f"{address[:-2]}xx/{rendition}").status_code == 403
    assert ana.get(f"{address}/original").status_code == 422  # no rendition
    clock.now += LINK_SECONDS + 1
    assert sign_in(user="ana").get(link).status_code == 403


def test_a_link_shows_nothing_without_sign_in(picture: Path, sign_in: SignIn, app: FastAPI) -> None:
    assert browser(app).get(links(sign_in())["screen"]).status_code == 401


def test_a_link_of_another_key_is_refused(context: AppContext, clock: Clock) -> None:
    forged = ImageLinks(b"k" * 32, clock).make("seen", "ana", [Rendition.NATIVE])[Rendition.NATIVE].split("/")[3]
    own = context.links.make("seen", "ana", [Rendition.NATIVE])[Rendition.NATIVE].split("/")[3]
    assert context.links.read(own, "ana") == "seen"
    assert context.links.read(forged, "ana") is None


def test_of_an_animation_the_worst_frame_is_shown(tmp_path: Path, desk: StandInDesk, sign_in: SignIn) -> None:
    frames = [Image.new("RGB", (64, 48), (grey, grey, grey)) for grey in (250, 10, 120)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    item = review_item("moving", str(tmp_path / "moving.gif"))
    for name, worst in (("moving", 1), ("first", 0), ("unmarked", None)):
        scores = item.scores.model_copy(update={"frames": 3, "worst_frame": worst}) if item.scores else None
        desk.items[name] = item.model_copy(update={"item_id": name, "scores": scores})
        desk.status[name] = desk.status["item-0"]
    client = sign_in()

    def grey(name: str) -> int:
        with Image.open(io.BytesIO(client.get(links(client, name)["screen"]).content)) as shown:
            return int(np.asarray(shown)[24, 32, 0])

    assert [grey(name) for name in ("moving", "first", "unmarked")] == [10, 250, 250]


def moving(folder: Path, desk: StandInDesk, greys: list[int], **options: Any) -> None:
    """The desk's item `moving`: an animation whose frames have these greys, of which the last but one is the worst."""
    frames = [Image.new("RGB", (64, 48), (grey, grey, grey)) for grey in greys]
    path = folder / "moving"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    item = review_item("moving", str(path))
    assert item.scores is not None
    scores = item.scores.model_copy(update={"frames": len(greys), "worst_frame": len(greys) - 2})
    desk.items["moving"] = item.model_copy(update={"item_id": "moving", "scores": scores})
    desk.status["moving"] = desk.status["item-0"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_frames_of_an_animation_come_in_one_picture(
    tmp_path: Path, desk: StandInDesk, sign_in: SignIn, kind: str
) -> None:
    greys = [250, 10, 120, 60, 200]
    moving(tmp_path, desk, greys, format=kind, duration=400)
    client = sign_in()
    answer = client.get(links(client, "moving")["frames"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    said = {name: answer.headers[f"x-frame-{name}"] for name in ("columns", "numbers", "count", "seconds")}
    assert said == {"columns": "3", "numbers": "0,1,2,3,4", "count": "5", "seconds": "2.000"}
    assert (answer.headers["x-image-width"], answer.headers["x-image-height"]) == ("64", "48")
    with Image.open(io.BytesIO(answer.content)) as sheet:
        assert sheet.size == (3 * SIDE, 2 * SIDE)
        shown = [
            sheet.convert("L").getpixel((SIDE * (at % 3) + SIDE // 2, SIDE * (at // 3) + SIDE // 2)) for at in range(5)
        ]
    np.testing.assert_allclose(shown, greys, atol=3)


def test_of_many_frames_some_are_shown_and_the_worst_among_them(
    tmp_path: Path, desk: StandInDesk, sign_in: SignIn
) -> None:
    moving(tmp_path, desk, [2 * number for number in range(100)], format="GIF", duration=100)
    client = sign_in()
    answer = client.get(links(client, "moving")["frames"])
    numbers = [int(number) for number in answer.headers["x-frame-numbers"].split(",")]
    assert (numbers[0], numbers[-1], len(numbers)) == (0, 99, FRAMES + 1)
    assert 98 in numbers
    assert answer.headers["x-frame-count"] == "100"


def test_an_image_that_was_exchanged_is_not_shown(picture: Path, sign_in: SignIn) -> None:
    client = sign_in()
    link = links(client)["screen"]
    picture.write_bytes(png(32, 32))
    answer = client.get(link)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sluice:problem:hash-mismatch")


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (None, 404, "image-not-found"),
        (b"", 422, "unsupported-format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 422, "unsupported-format"),
        (b"<html><script>alert(1)</script></html>", 422, "unsupported-format"),
        (png()[:80], 422, "truncated-image"),
        (png()[:60] + b"broken" + png()[66:], 422, "undecodable-image"),
    ],
)
def test_what_is_no_image_is_named_and_not_passed_on(
    tmp_path: Path, desk: StandInDesk, sign_in: SignIn, content: bytes | None, status: int, kind: str
) -> None:
    path = tmp_path / "odd"
    if content is not None:
        path.write_bytes(content)
    desk.items["odd"] = review_item("odd", str(path))
    desk.status["odd"] = desk.status["item-0"]
    answer = sign_in().get(links(sign_in(), "odd")["screen"])
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:sluice:problem:{kind}")
    assert b"alert" not in answer.content


def test_a_file_outside_the_roots_is_refused(desk: StandInDesk, sign_in: SignIn) -> None:
    desk.items["passwd"] = review_item("passwd", "/etc/passwd")
    desk.status["passwd"] = desk.status["item-0"]
    client = sign_in(Role.ADMIN)
    answer = client.get(links(client, "passwd")["native"])
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sluice:problem:reference-refused")


class CountingFetcher:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fetched = 0

    def fetch(self, reference: object) -> FetchedImage:
        self.fetched += 1
        return FetchedImage(self.data)

    def close(self) -> None: ...


def test_a_bomb_is_refused_by_its_header() -> None:
    renderer = Renderer(
        CountingFetcher(png(100, 100)),
        decoder=ThreadDecoder(DecodeLimits(9_999), {}),
        frame_decoder=ThreadDecoder(DecodeLimits(9_999), SHEET_VIEWS),
        cache_bytes=1000,
        threads=1,
    )
    with pytest.raises(ImageError, match="max_pixels is 9999"):
        renderer.render(FileReference(path="bomb"), None, Rendition.SCREEN)


def test_the_cache_spares_the_fetch_and_stays_within_its_bytes() -> None:
    fetcher = CountingFetcher(png(300, 300))
    roomy = Renderer(
        fetcher,
        decoder=ThreadDecoder(DecodeLimits(10**6), {}),
        frame_decoder=ThreadDecoder(DecodeLimits(10**6), SHEET_VIEWS),
        cache_bytes=10**6,
        threads=1,
    )
    for _ in range(3):
        roomy.render(FileReference(path="a"), None, Rendition.SCREEN)
    assert fetcher.fetched == 1
    tight = Renderer(
        fetcher,
        decoder=ThreadDecoder(DecodeLimits(10**6), {}),
        frame_decoder=ThreadDecoder(DecodeLimits(10**6), SHEET_VIEWS),
        cache_bytes=10,
        threads=1,
    )
    for _ in range(3):
        tight.render(FileReference(path="a"), None, Rendition.SCREEN)
    assert fetcher.fetched == 4
