"""Which frames of an animation are seen, and as what."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schemas import FailureReason
from tests.unit.images.made_images import (
    HEIGHT,
    RGB,
    WIDTH,
    actl,
    apng_with_hidden_default,
    avif,
    encoded,
    fctl,
    fdat,
    gif,
    gif_image,
    noise,
    picture,
    png,
    rgb_samples,
    scene,
)
from worker.images.decode import DecodeLimits, decode, decoded
from worker.images.errors import ImageError

LIMITS = DecodeLimits(100_000)
GREYS = [10 * number for number in range(20)]


def seen(data: bytes, limits: DecodeLimits = LIMITS) -> tuple[int, tuple[int, ...], list[NDArray[np.uint8]]]:
    with decoded(data, limits) as shown:
        return shown.count, shown.numbers, list(shown.pixels)


def animation(kind: str, greys: list[int] = GREYS, **options: object) -> bytes:
    first, *rest = [Image.new("RGB", (WIDTH, HEIGHT), (grey, grey, grey)) for grey in greys]
    lossless: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "AVIF":
        lossless = {"quality": 95, "speed": 10, "codec": "aom"}
    return encoded(first, kind, save_all=True, append_images=rest, duration=100, **lossless, **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_are_spread_evenly_with_the_first_and_the_last(kind: str) -> None:
    count, numbers, frames = seen(animation(kind))
    assert (count, numbers) == (20, (0, 3, 5, 8, 11, 14, 16, 19))
    greys = [int(frame[16, 24, 0]) for frame in frames]
    assert np.abs(np.array(greys) - [GREYS[number] for number in numbers]).max() <= 6
    assert all(frame.shape == (HEIGHT, WIDTH, 3) for frame in frames)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_all_frames_of_a_short_animation_are_seen(kind: str) -> None:
    assert seen(animation(kind, [0, 100, 200]))[:2] == (3, (0, 1, 2))


def test_so_many_frames_as_the_settings_say_are_seen() -> None:
    limits = DecodeLimits(100_000, animation_frames=2)
    assert seen(animation("GIF"), limits)[1] == (0, 19)
    assert seen(animation("GIF"), DecodeLimits(100_000, animation_frames=1))[1] == (0,)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
def test_a_still_image_has_one_frame(kind: str) -> None:
    assert seen(encoded(picture(), kind))[:2] == (1, (0,))


def test_a_default_image_that_is_never_shown_is_no_frame() -> None:
    count, numbers, frames = seen(apng_with_hidden_default())
    assert (count, numbers) == (2, (0, 1))
    assert np.array_equal(frames[0], scene())
    assert np.array_equal(frames[1], scene()[::-1])


def test_frames_are_put_on_what_the_frames_before_have_left() -> None:
    samples = rgb_samples()
    red = np.zeros((10, 10, 3), np.uint16)
    red[:, :, 0] = 255
    whole = fctl(0, WIDTH, HEIGHT)
    cleared = fctl(1, 10, 10, 0, 0, disposal=1) + fdat(2, red)
    restored = fctl(3, 10, 10, 20, 0, disposal=2) + fdat(4, red)
    last = fctl(5, 10, 10, 30, 10) + fdat(6, red)
    data = png(samples, 8, RGB, actl(4), whole, after=cleared + restored + last)
    _, _, frames = seen(data)
    assert np.array_equal(frames[0], scene())
    assert (frames[1][:10, :10] == [255, 0, 0]).all()
    assert (frames[2][:10, :10] == 255).all(), "the first small frame was cleared, to white"
    assert (frames[2][:10, 20:30] == [255, 0, 0]).all()
    assert np.array_equal(frames[3][:10, 20:30], scene()[:10, 20:30]), "the second was undone"
    assert (frames[3][10:20, 30:40] == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_cut_short_is_refused(kind: str) -> None:
    data = encoded(noise(), kind, save_all=True, append_images=[picture(), noise().rotate(90), picture().rotate(180)])
    with pytest.raises(ImageError) as caught:
        seen(data[: int(len(data) * 0.85)])
    assert caught.value.reason in (FailureReason.TRUNCATED_IMAGE, FailureReason.UNDECODABLE_IMAGE)


def test_an_animated_png_that_announces_more_frames_than_it_has_is_seen_as_far_as_it_goes() -> None:
    data = png(
        rgb_samples(), 8, RGB, actl(9), fctl(0, WIDTH, HEIGHT), after=fctl(1, WIDTH, HEIGHT) + fdat(2, rgb_samples())
    )
    assert seen(data)[:2] == (2, (0, 1))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_of_too_many_pixels_is_too_large(kind: str) -> None:
    data = animation(kind)
    total = 20 * WIDTH * HEIGHT
    assert len(seen(data, DecodeLimits(100_000, max_animation_pixels=total))[2]) == 8
    with pytest.raises(ImageError, match=r"images\.max_animation_pixels") as caught:
        seen(data, DecodeLimits(100_000, max_animation_pixels=total // 2 - 1))
    assert caught.value.reason is FailureReason.IMAGE_TOO_LARGE


def test_of_many_images_only_the_first_frame_is_decoded() -> None:
    assert decode(animation("GIF"), max_pixels=100_000)[16, 24, 0] == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_one_frame_is_decoded_by_its_number(kind: str) -> None:
    data = animation(kind)
    assert abs(int(decode(data, max_pixels=100_000, frame=7)[16, 24, 0]) - GREYS[7]) <= 6
    with pytest.raises(ImageError, match="20 frames"):
        decode(data, max_pixels=100_000, frame=20)


def test_frames_smaller_than_their_screen_leave_it_white() -> None:
    data = gif(gif_image(20, 10, 9, 7, control=(2, None)), gif_image(8, 8), width=WIDTH, height=HEIGHT)
    _, _, (first, second) = seen(data)
    assert (first[0] == 255).all()
    assert (second[10, 20:] == 255).all()


def test_an_avif_sequence_whose_later_frames_code_too_much_is_a_bomb() -> None:
    data = avif(picture(256, 256), save_all=True, append_images=[picture(256, 256).rotate(90 * n) for n in range(1, 4)])
    assert seen(data, DecodeLimits(100_000))[0] == 4
    with pytest.raises(ImageError) as caught:
        seen(data, DecodeLimits(100_000, max_animation_pixels=100_000))
    assert caught.value.reason is FailureReason.IMAGE_TOO_LARGE
