"""The opset, from bytes that may be anything."""

from hypothesis import given
from hypothesis import strategies as st

from worker.scoring.model import SHIPPED_MODELS
from worker.scoring.onnx_file import read_opset


def message(*entries: bytes) -> bytes:
    """ModelProto with ir_version 10 and these opset entries."""
    return b"\x08\x0a" + b"".join(b"\x42" + bytes([len(entry)]) + entry for entry in entries)


def test_the_shipped_graph_tells_its_opset() -> None:
    assert read_opset((SHIPPED_MODELS / "mst-lite" / "towers.onnx").read_bytes()) == 18


def test_the_default_domain_counts_wherever_it_stands() -> None:
    vendor = b"\x0a\x0ccom.microsoft\x10\x01".replace(b"\x0c", bytes([13]))
    assert read_opset(message(vendor, b"\x0a\x00\x10\x12")) == 18
    assert read_opset(message(b"\x10\x13")) == 19
    assert read_opset(message(b"\x0a\x07ai.onnx\x10\x11")) == 17
    assert read_opset(message(vendor)) is None


@given(st.binary(max_size=200))
def test_any_bytes_give_an_opset_or_none(data: bytes) -> None:
    assert read_opset(data) is None or isinstance(read_opset(data), int)


@given(st.integers(0, 7))
def test_a_file_cut_short_has_no_opset(cut: int) -> None:
    whole = message(b"\x0a\x00\x10\x12")
    assert read_opset(whole[: min(cut, len(whole) - 1)]) is None
