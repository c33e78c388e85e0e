"""Reads the opset of an ONNX file without the onnx package, and defines the error for unsupported graphs."""


class GraphError(Exception):
    """A backend cannot prepare or run a model's graph. The message says what is wrong and what to do."""


def read_opset(data: bytes) -> int | None:
    """The version of the default operator set that an ONNX model imports; None if the bytes are not an ONNX model.

    Walks the top level of the protobuf message ModelProto (onnx.proto): `opset_import` is field 8, a message with
    `domain` in field 1 and `version` in field 2.
    """
    try:
        for field, value in _fields(data):
            if field == 8 and isinstance(value, bytes):
                entry = dict(_fields(value))
                version = entry.get(2)
                if entry.get(1, b"") in (b"", b"ai.onnx") and isinstance(version, int):
                    return version
    except (IndexError, ValueError):
        return None
    return None


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    fields: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            number, position = _varint(data, position)
            fields.append((field, number))
            continue
        if wire_type == 2:
            length, position = _varint(data, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + length > len(data):
            raise ValueError("a field runs past the end")
        fields.append((field, data[position : position + length]))
        position += length
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")
