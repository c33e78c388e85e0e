"""AVIF, by libavif; its boxes (ISO/IEC 14496-12 and 23008-12) are checked for decompression bombs before."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import chain, islice
from typing import Final

from PIL.AvifImagePlugin import AvifImageFile

from worker.images import exif
from worker.images.av1 import Bits, frames
from worker.images.boxes import boxes
from worker.images.colour import CodedColour, Colour, IccProfile
from worker.images.errors import bomb
from worker.images.picture import BYTES_A_PIXEL, Picture

BOXES: Final = 1000
HEADER_BYTES: Final = 64 * 1024
PIECES: Final = 10_000
"""Extents of coded pictures, and units of their AV1 streams. A real picture has a few."""
LAYERS: Final = 4
"""How many times `max_pixels` a file may code: colour and alpha of the still picture and of the first frame."""
OVERLAP: Final = 4
"""How many times its own size the pictures of a file may have: items and tracks may share data, as equal tiles do."""
SAMPLES: Final = 100_000
"""Samples of a track. libavif takes 128 bytes of memory for each."""
SMALL: Final = 1024 * 1024
"""A file of fewer bytes counts as so large for OVERLAP."""

_SAMPLE_TABLE: Final = frozenset({b"stsd", b"stsz", b"stsc", b"stco", b"co64"})
_Pieces = list[memoryview]


def open_avif(data: bytes, max_pixels: int, sequence_pixels: int = 0) -> Picture:
    """With `sequence_pixels`, all pictures of a sequence may be decoded, which may code so many pixels and their alpha.
    Raises ImageError where it is a bomb, else whatever the readers of its headers raise."""
    coded = check_avif(data, max_pixels)
    image = AvifImageFile(BytesIO(data))
    if image.n_frames > 1 and sequence_pixels:
        check_avif(data, max_pixels, sequence_pixels)
    pixels = max(image.width * image.height, coded)

    def frames(numbers: Sequence[int]) -> Iterator[AvifImageFile]:
        for number in numbers:
            image.seek(number)
            image.load()
            yield image

    # Pillow puts what the boxes irot and imir say in place of Exif's orientation, as it has to be.
    orientation = exif.orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    return Picture(
        image.width,
        image.height,
        lambda: image,
        orientation=orientation,
        colour=avif_colour(data, image.info.get("icc_profile")),
        memory=pixels * BYTES_A_PIXEL,
        frame_count=image.n_frames,
        seconds=_seconds(data) if image.n_frames > 1 else 0.0,
        frames=frames,
    )


def _seconds(data: bytes) -> float:
    """How long the first track lasts, once (14496-12, 8.4.2); 0 where the file does not say."""
    movies = (content for kind, content in _top_boxes(memoryview(data)) if kind == b"moov")
    media = (media for movie in movies for track in _below(movie, b"trak") for media in _below(track, b"mdia"))
    for header in chain.from_iterable(_below(each, b"mdhd") for each in media):
        size = 8 if _version(header) == 1 else 4
        at = 4 + 2 * size
        scale = int.from_bytes(header[at : at + 4], "big")
        duration = int.from_bytes(header[at + 4 : at + 4 + size], "big")
        return duration / scale if scale and duration != 256**size - 1 else 0.0
    return 0.0


def check_boxes(data: bytes) -> None:
    """The limits on lists, which hold for HEIF as well. Raises ImageError where they are too long."""
    listed = sum(_listed(kind, content) for kind, content in _top_boxes(memoryview(data)) if kind in (b"meta", b"moov"))
    if listed > HEADER_BYTES:
        raise bomb(f"a file whose lists have {listed} bytes, where {HEADER_BYTES} are allowed")


def ends_early(data: bytes) -> bool:
    """Whether the last box says that it is longer than the file."""
    return any(box.is_cut for box in islice(boxes(data), BOXES))


def avif_colour(data: bytes, profile: bytes | None) -> Colour | None:
    """By the profile where there is one, else by the code points of the first box `colr` that has any."""
    if profile:
        return IccProfile.of(profile)
    for kind, meta in _top_boxes(memoryview(data)):
        if kind == b"meta":
            for kind, content in _properties(meta[4:]):
                if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 8:
                    return CodedColour.of_codes(
                        int.from_bytes(content[4:6], "big"), int.from_bytes(content[6:8], "big")
                    )
    return None


def check_avif(data: bytes, max_pixels: int, sequence_pixels: int = 0) -> int:
    """The pixels that are coded in an AVIF, of all pictures that decoding its first frame may take; with
    `sequence_pixels`, of all frames.

    The size that it says is no bound. Its picture may be larger, and is scaled then; it may consist of hundreds; each
    may have many frames before the first that is shown; and the library makes room for pieces of data that take no
    byte of the file. Raises ImageError where it is a bomb, ValueError where it is broken.
    """
    headers = [(kind, content) for kind, content in _top_boxes(memoryview(data)) if kind in (b"meta", b"moov")]
    # The library looks for each item among all others, so that many take the square of their number.
    listed = sum(_listed(kind, content) for kind, content in headers)
    if listed > HEADER_BYTES:
        raise bomb(f"an AVIF whose lists have {listed} bytes, where {HEADER_BYTES} are allowed")
    most = LAYERS * max_pixels + 2 * sequence_pixels
    pictures = list(
        chain.from_iterable(
            _pictures(kind, content, memoryview(data), sequence_pixels > 0) for kind, content in headers
        )
    )
    if sum(len(piece) for pieces in pictures for piece in pieces) > OVERLAP * max(len(data), SMALL):
        raise bomb(f"an AVIF whose pictures have {OVERLAP} times the bytes that it has")
    coded = 0
    for part, pixels in enumerate(chain.from_iterable(frames(b"".join(pieces)) for pieces in pictures)):
        coded += pixels
        if part >= PIECES:
            raise bomb(f"an AVIF of more than {PIECES} parts")
        if coded > most:
            limit = "twice images.max_animation_pixels" if sequence_pixels else f"{LAYERS} times images.max_pixels"
            raise bomb(f"an AVIF that codes more than {limit}: {most} pixels")
    return coded


def _listed(kind: bytes, content: memoryview) -> int:
    """Bytes of lists: neither of colour profiles, which are read once, nor of pictures that lie inside of `meta`."""
    if kind != b"meta":
        return len(content)
    content = content[4:]
    inside = sum(len(data) for data in _below(content, b"idat"))
    profiles = sum(len(data) for name, data in _properties(content) if name == b"colr")
    return len(content) - inside - profiles


def _properties(meta: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for properties in _below(meta, b"iprp"):
        for container in _below(properties, b"ipco"):
            yield from _boxes(container)


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that follow each other in `data`: their types and contents."""
    return ((box.kind, data[box.start : box.end]) for box in boxes(data))


def _top_boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for count, box in enumerate(_boxes(data)):
        if count >= BOXES:
            raise bomb(f"an AVIF of more than {BOXES} boxes")
        yield box


def _below(parent: memoryview, kind: bytes) -> Iterator[memoryview]:
    return (content for found, content in _boxes(parent) if found == kind)


def _pictures(kind: bytes, content: memoryview, file: memoryview, is_sequence: bool) -> Iterator[_Pieces]:
    return _items(content[4:], file) if kind == b"meta" else _track_samples(content, file, is_sequence)


def _items(meta: memoryview, file: memoryview) -> Iterator[_Pieces]:
    """The streams of all coded items: tiles, alpha, thumbnails."""
    coded = {
        int.from_bytes(entry[4 : 6 + wider], "big")
        for items in _below(meta, b"iinf")
        for entry in _below(items[8 if _version(items) else 6 :], b"infe")
        if bytes(entry[8 + (wider := 2 * (_version(entry) > 2)) :][:4]) == b"av01"
    }
    inside = next(_below(meta, b"idat"), memoryview(b""))
    for locations in _below(meta, b"iloc"):
        yield from (pieces for item, pieces in _locations(locations, file, inside) if item in coded)


def _locations(box: memoryview, file: memoryview, inside: memoryview) -> Iterator[tuple[int, _Pieces]]:
    """For each item its number and where it lies, in `file` or in the box `inside` the list (14496-12, 8.11.3)."""
    version, bits = _version(box), Bits(box[4:])
    offset_bits, length_bits, base_bits, index_bits = (8 * bits.take(4) for _ in range(4))
    wide = 32 if version > 1 else 16
    total = 0
    for _ in range(bits.take(wide)):
        item = bits.take(wide)
        place = inside if version and bits.take(16) & 15 == 1 else file
        bits.take(16)
        base = bits.take(base_bits)
        count = bits.take(16)
        total += 1 + count
        if total > PIECES:
            raise bomb(f"an AVIF of more than {PIECES} pieces")
        pieces = []
        for _ in range(count):
            bits.take(index_bits if version else 0)
            start, length = base + bits.take(offset_bits), bits.take(length_bits)
            pieces.append(place[start : start + length if length else None])
        yield item, pieces


def _track_samples(moov: memoryview, file: memoryview, is_sequence: bool) -> Iterator[_Pieces]:
    """The pictures of each track: the first, or all where the sequence is to be decoded."""
    for track in _below(moov, b"trak"):
        for media in _below(track, b"mdia"):
            for information in _below(media, b"minf"):
                for table in _below(information, b"stbl"):
                    samples = _samples(table, file)
                    yield list(samples if is_sequence else islice(samples, 1))


def _samples(table: memoryview, file: memoryview) -> Iterator[memoryview]:
    """By its sample table (14496-12, 8.7): nothing where that tells none that is coded in AV1."""
    listed = [(kind, content) for kind, content in _boxes(table) if kind in _SAMPLE_TABLE]
    found = dict(listed)
    if b"av01" not in bytes(found.get(b"stsd", b"")):
        return
    if len(listed) != 4 or not {b"stsc", b"stsz"} < found.keys():
        raise ValueError("a track has no sample table, or several")
    sizes, counts = found[b"stsz"], found[b"stsc"]
    width = 4 if b"stco" in found else 8
    chunks = found[b"stco" if width == 4 else b"co64"][8:]
    most = max((int.from_bytes(counts[at : at + 4], "big") for at in range(12, len(counts), 12)), default=0)
    if most * (len(chunks) // width) > SAMPLES:
        raise bomb(f"an AVIF of more than {SAMPLES} pictures that follow each other")
    # From which chunk on each has so many samples.
    runs = {
        int.from_bytes(counts[at : at + 4], "big"): int.from_bytes(counts[at + 4 : at + 8], "big")
        for at in range(8, len(counts) - 11, 12)
    }
    same, number, in_chunk = int.from_bytes(sizes[4:8], "big"), 0, 1
    for chunk in range(len(chunks) // width):
        start = int.from_bytes(chunks[chunk * width : (chunk + 1) * width], "big")
        in_chunk = runs.get(chunk + 1, in_chunk)
        for _ in range(in_chunk):
            size = same or int.from_bytes(sizes[12 + 4 * number : 16 + 4 * number], "big")
            yield file[start : start + size]
            start += size
            number += 1


def _version(box: memoryview) -> int:
    return int.from_bytes(box[:1], "big")
