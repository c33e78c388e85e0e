"""Files that are small, or as large as any, and would keep their reader busy for minutes or take all memory."""

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from schemas import FailureReason
from worker.images.decode import MAX_SIDE, decode
from worker.images.errors import ImageError
from worker.images.memory import MemoryBudget
from worker.images.png import CHUNKS as READS

MAX_PIXELS = 4_000_000
PATIENCE = 60.0
MANY = 400_000
"""Parts: without a limit they take seconds, on a quiet machine."""


def encoded(kind: str, size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", size, 1).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def inserted(data: bytes, before: bytes, what: bytes, *, back: int = 0) -> bytes:
    at = data.index(before) - back
    return data[:at] + what + data[at:]


def scans(count: int) -> bytes:
    data = encoded("JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def hidden_scans(count: int) -> bytes:
    """Scans behind a comment that looks like the end."""
    data = scans(count)
    start = data.rindex(b"\xff\xda")
    return data[:start] + segment(0xFE, b"\xff\xd9") + data[start:]


PROFILE = b"x\0\0" + zlib.compress(bytes(900_000))
BOMBS: dict[str, Callable[[], bytes]] = {
    "empty segments": lambda: inserted(encoded("JPEG"), b"\xff\xdb", segment(0xE5, b"") * MANY),
    "scans": lambda: scans(200),
    "scans after a false end": lambda: hidden_scans(200),
    "empty chunks": lambda: inserted(encoded("PNG"), b"IDAT", chunk(b"aaAa") * MANY, back=4),
    "empty data chunks": lambda: inserted(encoded("PNG"), b"IDAT", chunk(b"IDAT") * MANY, back=4),
    "chunks after the picture": lambda: inserted(encoded("PNG"), b"IEND", chunk(b"aaAa") * MANY, back=4),
    "comments of a GIF": lambda: inserted(encoded("GIF"), b",\0\0\0\0", b"\x21\xfe\x01a\0" * MANY),
    "garbage in a GIF": lambda: inserted(encoded("GIF"), b",\0\0\0\0", bytes(MANY)),
    "one row": lambda: encoded("PNG", (MAX_SIDE + 1, 1)),
    "one column": lambda: encoded("PNG", (1, MAX_SIDE + 1)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_keep_its_reader_busy_is_too_large(bomb: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(BOMBS[bomb](), max_pixels=MAX_PIXELS)
    assert caught.value.reason is FailureReason.IMAGE_TOO_LARGE, str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "data",
    [
        # what is skipped without being unpacked costs nothing
        inserted(encoded("JPEG"), b"\xff\xdb", b"\xff" * MANY),
        inserted(encoded("JPEG"), b"\xff\xdb", segment(0xE1, b"Exif\0\0MM") * 100),
        inserted(encoded("JPEG"), b"\xff\xdb", segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5000) * 3),
        inserted(encoded("PNG"), b"IDAT", chunk(b"iCCP", PROFILE) * 30, back=4),
        scans(20),
        inserted(encoded("JPEG"), b"\xff\xdb", segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 255),
        # what looks like scans in something else
        inserted(encoded("JPEG"), b"\xff\xdb", segment(0xFE, b"\xff\xda" * 1000)),
        encoded("JPEG") + b"\xff\xda" * 1000,
        inserted(encoded("PNG"), b"IDAT", chunk(b"tEXt", b"key\0text") * 1000, back=4),
        inserted(encoded("GIF"), b",\0\0\0\0", b"\x21\xfe\x01a\0" * 1000),
    ],
    ids=[
        "fill bytes",
        "blocks of Exif",
        "Photoshop",
        "profiles",
        "scans",
        "profile",
        "comment of scans",
        "appendix of scans",
        "texts",
        "comments",
    ],
)
def test_what_honest_files_have_much_of_is_no_bomb(data: bytes) -> None:
    assert decode(data, max_pixels=MAX_PIXELS).shape == (64, 64, 3)


def test_broken_tags_are_not_told_one_by_one() -> None:
    tags = b"".join(struct.pack(">HHII", number, 7, 50_000, 8) for number in range(1000, 2000))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 1000) + tags + bytes(4)
    data = inserted(encoded("PNG"), b"IDAT", chunk(b"eXIf", exif), back=4)
    script = (
        "import sys; from worker.images.decode import decode; "
        "print(decode(sys.stdin.buffer.read(), max_pixels=10_000).shape)"
    )
    # in a process of its own: pytest has its own filters
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    assert (done.stdout.decode().strip(), done.stderr) == ("(64, 64, 3)", b"")


def test_a_png_in_pieces_of_a_kilobyte_is_no_bomb() -> None:
    raw = b"".join(b"\0" + bytes((row * column * 7919) % 256 for column in range(3000)) for row in range(1000))
    packed = zlib.compress(raw, 0)
    pieces = b"".join(chunk(b"IDAT", packed[at : at + 1024]) for at in range(0, len(packed), 1024))
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 2, 0, 0, 0))
    assert decode(head + pieces + chunk(b"IEND"), max_pixels=MAX_PIXELS).shape == (1000, 1000, 3)
    assert READS > 100 * 1024 * 4 / 8, "a PNG of 100 MiB in chunks of 8 KiB, as libpng writes them"


def test_no_more_is_in_the_room_than_it_holds() -> None:
    room = MemoryBudget(10)
    lock = threading.Lock()
    inside = most = 0

    def visit(size: int) -> None:
        nonlocal inside, most
        with room.reserve(size):
            with lock:
                inside += size
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, [1, 4, 10, 7, 3, 2, 9, 5] * 20, timeout=PATIENCE))
    assert inside == 0
    assert 5 <= most <= 10


def test_a_large_one_is_not_kept_waiting_by_small_ones_that_came_later() -> None:
    room = MemoryBudget(10)
    order: list[str] = []
    first_is_in, first_may_go = threading.Event(), threading.Event()

    def visit(name: str, size: int) -> None:
        with room.reserve(size):
            order.append(name)
            if name == "first":
                first_is_in.set()
                first_may_go.wait(PATIENCE)

    with ThreadPoolExecutor(3) as pool:
        visits = [pool.submit(visit, "first", 5)]
        assert first_is_in.wait(PATIENCE)
        visits.append(pool.submit(visit, "large", 8))
        while not room._queue:
            time.sleep(0.001)
        visits.append(pool.submit(visit, "small", 1))
        while len(room._queue) < 2:
            time.sleep(0.001)
        first_may_go.set()
        for each in visits:
            each.result(PATIENCE)
    assert order == ["first", "large", "small"]


def test_what_is_larger_than_the_room_gets_in_alone_and_leaves_it_usable_after_an_error() -> None:
    room = MemoryBudget(10)

    def fail() -> None:
        with room.reserve(1000):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    with room.reserve(10):
        pass
