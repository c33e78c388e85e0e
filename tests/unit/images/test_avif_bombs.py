"""AVIFs that say little and ask for much, and honest ones, which are to be let through."""

import io
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, features

from schemas import FailureReason
from worker.images.av1 import frames
from worker.images.avif import HEADER_BYTES, check_avif
from worker.images.decode import decode
from worker.images.errors import ImageError

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

MAX_PIXELS = 1_000_000
SIDE = 256
TILES = 4 * MAX_PIXELS // SIDE**2 + 1


def encoded(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, "AVIF", speed=10, **options)
    return buffer.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def full_box(kind: bytes, content: bytes, version: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24) + content)


def found(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind) - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")]


def with_box(data: bytes, kind: bytes, changed: bytes) -> bytes:
    """The file with another box in its `meta`; places of data are those of before."""
    old, meta = found(data, kind), found(data, b"meta")
    longer = box(b"meta", meta[8:].replace(old, changed))
    return data.replace(meta, longer)


def grid(tiles: int, *, stream: bytes | None = None, said: int = SIDE, kind: bytes = b"grid") -> bytes:
    """A picture of many tiles beside each other, all of one stream and of the side that is `said`."""
    source = encoded()
    stream = found(source, b"mdat")[8:] if stream is None else stream
    numbers = range(2, 2 + tiles)
    size = struct.pack(">II", said * tiles, said)
    entries = [(1, kind), *((number, b"av01") for number in numbers)]
    infe = b"".join(full_box(b"infe", struct.pack(">HH4sx", number, 0, name), 2) for number, name in entries)
    references = struct.pack(f">HH{tiles}H", 1, tiles, *numbers)
    properties = [
        full_box(b"ispe", size),
        full_box(b"ispe", struct.pack(">II", said, said)),
        found(source, b"av1C"),
        full_box(b"pixi", bytes([3, 8, 8, 8])),
    ]
    owned = struct.pack(">IHBBB", tiles + 1, 1, 2, 1, 4)
    owned += b"".join(struct.pack(">HBBBB", number, 3, 2, 0x83, 4) for number in numbers)

    def meta(at: int) -> bytes:
        places = b"".join(struct.pack(">HHHII", number, 0, 1, at + 8, len(stream)) for number in numbers)
        located = struct.pack(">BBH", 0x44, 0, tiles + 1) + struct.pack(">HHHII", 1, 0, 1, at, 8) + places
        parts = [
            full_box(b"hdlr", b"\0\0\0\0pict" + bytes(13)),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", located),
            full_box(b"iinf", struct.pack(">H", tiles + 1) + infe),
            full_box(b"iref", box(b"dimg", references)),
            box(b"iprp", box(b"ipco", b"".join(properties)) + full_box(b"ipma", owned)),
        ]
        return full_box(b"meta", b"".join(parts))

    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miafMA1B")
    content = struct.pack(">BBBBHH", 0, 0, 0, tiles - 1, said * tiles, said) + stream
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", content)


def many_frames(count: int) -> bytes:
    """A picture whose frame comes again and again; only the first of those that are shown is."""
    data = encoded()
    stream = found(data, b"mdat")[8:]
    location = found(data, b"iloc")
    again = location[:-4] + struct.pack(">I", len(stream) * count)
    return with_box(data, b"iloc", again)[: -len(stream) - 8] + box(b"mdat", stream * count)


def larger_than_it_says() -> bytes:
    data = encoded(size=(2048, 2048))
    return with_box(data, b"ispe", full_box(b"ispe", struct.pack(">II", 100, 100)))


def endless_items() -> bytes:
    data = encoded()
    location = found(data, b"iloc")
    more = b"".join(struct.pack(">HHH", 1000 + number, 0, 0) for number in range(20_000))
    return with_box(data, b"iloc", box(b"iloc", location[8:14] + struct.pack(">H", 20_001) + location[16:] + more))


def pieces_of_nothing() -> bytes:
    """Each item has 65,535 pieces that take no byte: as much memory as the library has, for a few kilobytes."""
    items = b"".join(struct.pack(">HHH", 1 + number, 0, 65_535) for number in range(10))
    return with_box(encoded(), b"iloc", full_box(b"iloc", struct.pack(">HH", 0, 10) + items))


def pictures_of_a_byte() -> bytes:
    data = moving()
    counts, sizes = found(data, b"stsc"), found(data, b"stsz")
    data = data.replace(counts, counts[:-8] + struct.pack(">I", 300_000) + counts[-4:])
    return data.replace(sizes, sizes[:12] + struct.pack(">II", 1, 300_000) + sizes[20:]) + bytes(300_000)


def moving(mode: str = "RGB") -> bytes:
    return encoded(mode, save_all=True, append_images=[Image.new(mode, (SIDE, SIDE), colour) for colour in (50, 90)])


BOMBS: dict[str, Callable[[], bytes]] = {
    "a larger picture than it says": larger_than_it_says,
    "a grid of larger tiles than it says": lambda: grid(TILES, said=64),
    "many frames": lambda: many_frames(TILES),
    "endless items": endless_items,
    "pieces of nothing": pieces_of_nothing,
    "pictures of a byte": pictures_of_a_byte,
    "many boxes": lambda: encoded() + box(b"free", b"") * 2000,
    "many parts": lambda: grid(1, stream=b"\x12\0" * 20_000),
    "data that is read again and again": lambda: grid(200, stream=b"\x7a\xff\xff\x03" + bytes(65_535)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_avif_that_asks_for_more_than_it_says_is_a_bomb(bomb: str) -> None:
    data = BOMBS[bomb]()
    assert len(data) < 500_000
    with pytest.raises(ImageError, match=r"an AVIF .*a decompression bomb") as caught:
        decode(data, max_pixels=MAX_PIXELS)
    assert caught.value.reason is FailureReason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_boxes_of_no_size_end_somewhere(size: int) -> None:
    with pytest.raises(ImageError):
        decode(encoded()[:32] + struct.pack(">I4s", size, b"free") * 2000, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    ("data", "coded"),
    [
        (encoded(size=(333, 217)), 333 * 217),
        (encoded(size=(1, 3)), 3),
        (encoded("L"), SIDE**2),
        (encoded("RGBA"), 2 * SIDE**2),
        (encoded(subsampling="4:4:4", tile_rows=1, tile_cols=1), SIDE**2),
        (moving(), 2 * SIDE**2),
        (moving("RGBA"), 4 * SIDE**2),
        (grid(12), 12 * SIDE**2),
    ],
    ids=["odd", "tiny", "grey", "alpha", "tiles", "moving", "moving alpha", "grid"],
)
def test_an_honest_avif_is_decoded_and_codes_what_it_shows(data: bytes, coded: int) -> None:
    assert check_avif(data, MAX_PIXELS) == coded
    assert decode(data, max_pixels=MAX_PIXELS).size % 3 == 0


def test_pictures_of_largest_size_with_alpha_may_move() -> None:
    assert check_avif(moving("RGBA"), SIDE**2) == 4 * SIDE**2


def test_metadata_of_any_size_is_no_picture() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 10 * HEADER_BYTES
    assert decode(encoded(exif=exif, xmp=b"\x12\0" * HEADER_BYTES), max_pixels=MAX_PIXELS).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("cut", range(20, 400, 7))
def test_a_cut_or_disturbed_avif_is_broken_and_nothing_else(cut: int) -> None:
    data = moving("RGBA")
    for broken in (data[:cut], data[:cut] + b"\xff" * 8 + data[cut + 8 :], data[:cut] + data[cut + 3 :]):
        with suppress(ImageError):
            decode(broken, max_pixels=MAX_PIXELS)


def packed(fields: Iterable[tuple[int, int]]) -> bytes:
    """Numbers in so many bits each, filled up to whole bytes."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def unit(kind: int, content: bytes) -> bytes:
    return bytes([kind << 3 | 2, len(content)]) + content


SIZE = [(9, 4), (8, 4), (639, 10), (479, 9)]
TOOLS = [(0, 3), (0, 4), (1, 1), (3, 2), (1, 1), (1, 1)]
SEQUENCES = {
    "reduced": [(0, 4), (1, 1), (8, 5), *SIZE],
    "plain": [(0, 4), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (4, 5), *SIZE, (0, 1), *TOOLS],
    "with numbers": [(0, 4), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (4, 5), *SIZE, (1, 1), (13, 4), (0, 3), *TOOLS],
    "timed": [
        *[(0, 4), (0, 1), (1, 1), (1, 32), (30, 32), (0, 1), (1, 1), (9, 5), (1, 32), (9, 5), (15, 5)],
        *[(1, 1), (1, 5), *[(257, 12), (8, 5), (1, 1), (1, 1), (5, 10), (5, 10), (0, 1), (1, 1), (9, 4)] * 2],
        *[*SIZE, (0, 1), *TOOLS],
    ],
    "steady": [
        *[(0, 4), (0, 1), (1, 1), (1, 32), (30, 32), (1, 1), (0, 2), (1, 1), (1, 2), (0, 1), (0, 1), (0, 5)],
        *[(0, 12), (4, 5), *SIZE, (0, 1), *TOOLS],
    ],
}
BEFORE_SIZE = {"plain": [], "with numbers": [(77, 16)], "timed": [], "steady": []}


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("frame", ["shown", "hidden", "of its own size", "shown again"])
def test_the_size_of_a_frame_follows_from_headers(kind: str, frame: str) -> None:
    shown = [(1, 1), (12_345, 16)] if kind == "timed" else [(1, 1)]
    tools = [(0, 1), (1, 1), (1, 1), *BEFORE_SIZE.get(kind, [])]
    header = {
        "shown": [(0, 1), (0, 2), *shown, *tools, (0, 1)],
        "hidden": [(0, 1), (0, 2), (0, 1), (1, 1), (0, 1), *tools, (0, 1)],
        "of its own size": [(0, 1), (0, 2), *shown, *tools, (1, 1)],
        "shown again": [(1, 1), (3, 3)],
    }[frame]
    expected = {"shown again": 0, "of its own size": 1 << 19}.get(frame, 640 * 480)
    stream = unit(2, b"") + unit(1, packed(SEQUENCES[kind])) + unit(6, packed([*header, (0xFF, 64)])) + unit(15, b"abc")
    sizes = list(frames(stream))
    assert sizes == [0, 0, 640 * 480 if kind == "reduced" else expected, 0]


def test_a_frame_of_a_later_sequence_has_its_size() -> None:
    small = packed([(0, 4), (1, 1), (8, 5), (0, 4), (0, 4), (1, 1), (1, 1)])
    large = packed([(0, 4), (1, 1), (8, 5), (15, 4), (15, 4), (65_535, 16), (65_535, 16)])
    frame = unit(6, bytes(8))
    assert list(frames(frame + unit(1, small) + frame + unit(1, large) + frame)) == [0, 0, 4, 0, 65_536**2]


@pytest.mark.parametrize("length", range(1, 12))
def test_a_header_that_ends_too_early_is_an_error(length: int) -> None:
    header = packed(SEQUENCES["timed"])
    with pytest.raises(ValueError, match="cut short"):
        list(frames(unit(1, header[:length])))


def test_noise_is_read_or_refused() -> None:
    random = np.random.default_rng(4)
    for _ in range(300):
        noise = random.integers(0, 256, 300, dtype=np.uint8).tobytes()
        with suppress(ValueError):
            assert min(frames(noise)) >= 0
