"""What we decode, pixel for pixel, against what Chromium shows."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser

from tests.unit.images.shown_images import MOVING, SHOWN
from worker.images.decode import DecodeLimits, decode, decoded
from worker.images.formats import sniff

Pixels = NDArray[np.uint8]

SHOW = """
async (files) => {
  const shown = [];
  for (const [type, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], {type}));
    const image = new Image();
    image.src = url;
    try {
      await image.decode();
      const canvas = document.createElement('canvas');
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext('2d');
      context.fillStyle = 'white';
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      let text = '';
      for (let at = 0; at < pixels.length; at += 8192) {
        text += String.fromCharCode.apply(null, pixels.subarray(at, at + 8192));
      }
      shown.push([canvas.width, canvas.height, btoa(text)]);
    } catch (error) {
      shown.push([0, 0, String(error)]);
    }
    URL.revokeObjectURL(url);
  }
  return shown;
}
"""

SHOW_FRAMES = """
async (files) => {
  const shown = [];
  for (const [type, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const decoder = new ImageDecoder({data: bytes, type});
    await decoder.tracks.ready;
    await decoder.completed;
    const frames = [];
    for (let frameIndex = 0; frameIndex < decoder.tracks.selectedTrack.frameCount; frameIndex++) {
      const {image} = await decoder.decode({frameIndex});
      const canvas = new OffscreenCanvas(image.displayWidth, image.displayHeight);
      const context = canvas.getContext('2d');
      context.fillStyle = 'white';
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      let text = '';
      for (let at = 0; at < pixels.length; at += 8192) {
        text += String.fromCharCode.apply(null, pixels.subarray(at, at + 8192));
      }
      frames.push([canvas.width, canvas.height, btoa(text)]);
      image.close();
    }
    shown.push(frames);
  }
  return shown;
}
"""

MEAN = 0.75
"""Of 255 steps, between all channels of all pixels: decoders round and scale chroma in their own ways."""
FAR, SHARE = 12, 0.01
"""So few channels may differ by more than so many steps: where colours of a wide gamut are clipped."""
LOOSE = {
    # Chromium 156 takes planes of alpha, and sequences, for limited range, whatever they say; libavif does not.
    "avif alpha": (6.0, 20),
    "avif sequence": (9.0, 24),
}


@pytest.fixture(scope="module")
def shown(chromium: Browser) -> Mapping[str, Pixels]:
    """All files in one page: name → (H, W, 3), on white."""
    files = {name: make() for name, make in SHOWN.items()}
    page = chromium.new_page()
    answers: list[Any] = page.evaluate(
        SHOW, [[f"image/{sniff(data)}", base64.b64encode(data).decode()] for data in files.values()]
    )
    page.close()
    broken = {name: text for name, (width, _, text) in zip(files, answers, strict=True) if not width}
    assert not broken, f"Chromium does not show {broken}"
    return {
        name: np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[:, :, :3]
        for name, (width, height, text) in zip(files, answers, strict=True)
    }


@pytest.fixture(scope="module")
def moving(chromium: Browser) -> Mapping[str, list[Pixels]]:
    """All frames of all animations. ImageDecoder is there on secure pages only."""
    page = chromium.new_page()
    page.route("https://images.test/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.goto("https://images.test/")
    files = {name: make() for name, make in MOVING.items()}
    answers: list[Any] = page.evaluate(
        SHOW_FRAMES, [[f"image/{sniff(data)}", base64.b64encode(data).decode()] for data in files.values()]
    )
    page.close()
    return {
        name: [
            np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[:, :, :3]
            for width, height, text in frames
        ]
        for name, frames in zip(files, answers, strict=True)
    }


@pytest.mark.parametrize("name", MOVING)
def test_every_frame_is_judged_as_chromium_shows_it(name: str, moving: Mapping[str, list[Pixels]]) -> None:
    with decoded(MOVING[name](), DecodeLimits(100_000, animation_frames=64)) as frames:
        ours = list(frames.pixels)
    assert len(ours) == len(moving[name])
    for number, (mine, theirs) in enumerate(zip(ours, moving[name], strict=True)):
        assert mine.shape == theirs.shape
        difference = np.abs(mine.astype(int) - theirs)
        assert difference.mean() <= MEAN, f"frame {number}"
        assert (difference > FAR).mean() <= SHARE, f"frame {number}"


def test_the_table_is_long() -> None:
    assert len(SHOWN) >= 120


@pytest.mark.parametrize("name", SHOWN)
def test_an_image_is_judged_as_chromium_shows_it(name: str, shown: Mapping[str, Pixels]) -> None:
    ours, theirs = decode(SHOWN[name](), max_pixels=100_000), shown[name]
    assert ours.shape == theirs.shape
    difference = np.abs(ours.astype(int) - theirs)
    mean, far = LOOSE.get(name, (MEAN, FAR))
    assert difference.mean() <= mean
    assert (difference > far).mean() <= SHARE
