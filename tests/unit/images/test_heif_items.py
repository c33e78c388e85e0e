"""Exif and XMP of AVIF and HEIC files, found without the libraries that decode them."""

import io
from collections.abc import Callable

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.images.provenance.heif_items import read_items

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'


def exif() -> bytes:
    found = Image.Exif()
    found[0x0131] = "Imaginator 3"
    return found.tobytes()


def avif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(buffer, "AVIF", exif=exif(), xmp=XMP)
    return buffer.getvalue()


def heic() -> bytes:
    buffer = io.BytesIO()
    picture = pillow_heif.from_pillow(Image.new("RGB", (64, 48), "teal"))
    picture.info.update(exif=exif(), xmp=XMP)
    picture.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [avif, heic])
def test_the_items_are_those_that_were_written(make: Callable[[], bytes]) -> None:
    block, packet = read_items(make(), 100_000)
    assert block.removeprefix(b"Exif\0\0") == exif().removeprefix(b"Exif\0\0")
    assert packet == XMP


@pytest.mark.parametrize("make", [avif, heic])
def test_no_more_is_copied_than_was_asked_for(make: Callable[[], bytes]) -> None:
    block, packet = read_items(make(), 20)
    assert len(block) <= 20
    assert packet == XMP[:20]


@given(st.sampled_from([avif(), heic()]), st.data())
def test_damaged_boxes_are_an_error_or_give_bounded_bytes(data: bytes, draw: st.DataObject) -> None:
    content = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        content[draw.draw(st.integers(0, min(len(content), 600) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(content[: draw.draw(st.integers(0, len(content)))])
    try:
        block, packet = read_items(cut, 1000)
    except ValueError:
        return
    assert len(block) <= 1000
    assert len(packet) <= 1000
