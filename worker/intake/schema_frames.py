"""Values as serializers of a schema registry frame them: a zero byte, the schema's id in four bytes, the data.

(Confluent's wire format; Apicurio and Karapace use it too.)
"""

from typing import Final, NamedTuple

HEADER_BYTES: Final = 5
_MAGIC: Final = 0
_JSON_BEGINS: Final = (b"{", b"[")


class SchemaFrame(NamedTuple):
    schema_id: int
    data: bytes

    @property
    def is_json(self) -> bool:
        """Whether the data can be JSON of an event. Avro data may begin so by chance."""
        return self.data.lstrip()[:1] in _JSON_BEGINS


def read_frame(value: bytes | None) -> SchemaFrame | None:
    """None for a value that is not framed: JSON never begins with a zero byte."""
    if value is None or len(value) < HEADER_BYTES or value[0] != _MAGIC:
        return None
    return SchemaFrame(int.from_bytes(value[1:HEADER_BYTES], "big"), value[HEADER_BYTES:])
