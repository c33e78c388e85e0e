"""The sizes of the frames of an AV1 stream, read from its headers.

Sections are those of https://aomediacodec.github.io/av1-spec/.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SEQUENCE_HEADER: Final = 1
_FRAME_HEADERS: Final = frozenset({3, 6, 7})
"""OBU_FRAME_HEADER, OBU_FRAME and OBU_REDUNDANT_FRAME_HEADER, which decoders accept in place of a first header."""
_KEY, _SWITCH = 0, 3
_SELECT = 2
"""SELECT_SCREEN_CONTENT_TOOLS and similar values: each frame header says whether the tool is used."""


class Bits:
    """Reads unsigned numbers, most significant bit first. Raises ValueError at the end of the data."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        end = (self._at + 7) // 8
        if end > len(self._data):
            raise ValueError("a header is cut short")
        return int.from_bytes(self._data[start // 8 : end], "big") >> (-self._at & 7) & (1 << count) - 1


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of a sequence header that frame sizes depend on."""

    width: int
    height: int
    pixels_at_most: int
    """The largest size that a frame header can state, by the number of bits for it."""
    is_reduced: bool
    presentation_bits: int
    screen_tools: int
    integer_motion: int
    id_bits: int


def frames(stream: bytes) -> Iterator[int]:
    """For each unit of a stream the pixels of the frame that it begins; 0 for units that begin none.

    A frame whose size is neither the sequence's nor cheap to learn counts as the largest that its bits can tell.
    Raises ValueError for headers that are cut short.
    """
    sequence = None
    for kind, payload in _parts(memoryview(stream)):
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(Bits(payload))
        if sequence is not None and kind in _FRAME_HEADERS:
            yield _pixels(Bits(payload), sequence)
        else:
            yield 0


def _parts(stream: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The open bitstream units (5.3): their types and contents."""
    at = 0
    while at < len(stream):
        kind, has_extension, has_size = stream[at] >> 3 & 15, stream[at] >> 2 & 1, stream[at] >> 1 & 1
        at += 1 + has_extension
        size = len(stream) - at
        if has_size:
            size = 0
            for place in range(8):  # leb128 (4.10.5)
                byte = stream[at] if at < len(stream) else 0
                at += 1
                size |= (byte & 0x7F) << 7 * place
                if byte < 0x80:
                    break
        yield kind, stream[at : at + size]
        at += size


def _sequence(bits: Bits) -> _Sequence:
    bits.take(4)  # profile, still picture
    is_reduced = bool(bits.take(1))
    presentation_bits = 0
    if is_reduced:
        bits.take(5)
    else:
        presentation_bits = _timing_and_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    id_bits, screen_tools, integer_motion = 0, _SELECT, _SELECT
    if not is_reduced:
        if bits.take(1):
            id_bits = bits.take(4) + bits.take(3) + 3
        bits.take(7)  # 128 pixels a superblock, two filters, four ways of motion
        if bits.take(1):  # the order of frames
            bits.take(2)
        screen_tools = _SELECT if bits.take(1) else bits.take(1)
        if screen_tools:
            integer_motion = _SELECT if bits.take(1) else bits.take(1)
    return _Sequence(
        width=width,
        height=height,
        pixels_at_most=1 << width_bits + height_bits,
        is_reduced=is_reduced,
        presentation_bits=presentation_bits,
        screen_tools=screen_tools,
        integer_motion=integer_motion,
        id_bits=id_bits,
    )


def _timing_and_points(bits: Bits) -> int:
    """Reads the timing info and operating points; returns the length of frame_presentation_time in frame headers."""
    delay_bits = presentation_bits = 0
    has_model = False
    if bits.take(1):
        bits.take(64)
        is_steady = bits.take(1)
        if is_steady:
            _skip_uvlc(bits)
        has_model = bool(bits.take(1))
        if has_model:
            delay_bits = bits.take(5) + 1
            bits.take(37)
            presentation_bits = bits.take(5) + 1
            presentation_bits = 0 if is_steady else presentation_bits
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if has_model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
    return presentation_bits


def _skip_uvlc(bits: Bits) -> None:
    """Skips a variable-length number, uvlc (4.10.3)."""
    zeros = 0
    while not bits.take(1):
        zeros += 1
        if zeros == 32:
            raise ValueError("a number has more than 32 bits")
    bits.take(zeros)


def _pixels(bits: Bits, sequence: _Sequence) -> int:
    """The pixels of the frame whose uncompressed header (5.9.2) begins here; 0 for one that shows an earlier frame."""
    if sequence.is_reduced:
        return sequence.width * sequence.height
    if bits.take(1):
        return 0
    kind, is_shown = bits.take(2), bits.take(1)
    bits.take(sequence.presentation_bits if is_shown else 1)
    if kind != _SWITCH and not (kind == _KEY and is_shown):
        bits.take(1)
    bits.take(1)
    uses_screen_tools = bits.take(1) if sequence.screen_tools == _SELECT else sequence.screen_tools
    if uses_screen_tools and sequence.integer_motion == _SELECT:
        bits.take(1)
    bits.take(sequence.id_bits)
    has_own_size = kind == _SWITCH or bits.take(1)
    return sequence.pixels_at_most if has_own_size else sequence.width * sequence.height
