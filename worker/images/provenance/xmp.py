"""The properties of an XMP packet that Sluice reads (ISO 16684-1), by expat."""

import contextlib
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_WANTED: Final = {
    f"{_IPTC} DigitalSourceType": "source_type",
    f"{_IPTC} DigitalSourcefileType": "source_type",
    "http://ns.adobe.com/xap/1.0/ CreatorTool": "software",
    "http://purl.org/dc/elements/1.1/ description": "description",
    "http://ns.adobe.com/exif/1.0/ UserComment": "comment",
}
_RESOURCE: Final = f"{_RDF} resource"
DEPTH: Final = 64
"""Elements within each other. A real packet has about ten."""
TEXT_CHARACTERS: Final = 256 * 1024


class _Refused(Exception):
    """The packet declares entities or is nested too deeply."""


@dataclass(slots=True)
class _Reader:
    found: dict[str, str] = field(default_factory=dict)
    depth: int = 0
    name: str | None = None
    name_depth: int = 0
    text: list[str] = field(default_factory=list)
    left: int = TEXT_CHARACTERS

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            raise _Refused
        for key, value in attributes.items():
            if key in _WANTED:
                self._note(_WANTED[key], value)
        if self.name is None and name in _WANTED:
            self.name, self.name_depth, self.text = _WANTED[name], self.depth, []
            if _RESOURCE in attributes:
                self._note(self.name, attributes[_RESOURCE])

    def characters(self, text: str) -> None:
        if self.name is not None and self.left > 0:
            self.text.append(text[: self.left])
            self.left -= len(text)

    def end(self, _name: str) -> None:
        if self.name is not None and self.depth == self.name_depth:
            self._note(self.name, "".join(self.text))
            self.name = None
        self.depth -= 1

    def refuse(self, *_: object) -> None:
        raise _Refused

    def _note(self, name: str, value: str) -> None:
        if value := value.strip():
            self.found.setdefault(name, value)


def read_xmp(packet: bytes) -> dict[str, str]:
    """`source_type`, `software`, `description` and `comment`, where the packet has them: as attributes, as elements or
    in lists. Of a damaged packet, what stands before the damage; a packet with a document type has nothing.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.buffer_text = True
    with contextlib.suppress(_Refused, expat.ExpatError, ValueError):
        parser.Parse(packet.strip(b"\0"), True)
    return reader.found
