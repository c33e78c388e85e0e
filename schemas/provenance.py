"""What an image's file says about where the image comes from."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.base import Contract

TEXT_CHARACTERS: Final = 200
"""Of each text in a Provenance at most; longer ones are cut."""

ProvenanceText = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARACTERS)]

C2paState = Literal["absent", "unverified", "invalid", "valid", "trusted"]
"""Of a C2PA manifest. `unverified`: there is one, but it was not verified (`images.provenance` is `text`, or it exceeds
a limit). `invalid`: it is damaged, or does not belong to these bytes. `valid`: its signature and hashes are right, but
its signer is unknown. `trusted`: its signer is on the trust list, too."""

GeneratorTool = Literal["a1111", "comfyui", "invokeai", "midjourney"]


class Provenance(Contract):
    """What is embedded in the file. Anyone can write all of it, except a C2PA manifest that is `trusted`.

    `found` says whether there is a C2PA manifest, an IPTC digital source type or the text of a generator. `c2pa_*` are
    the manifest's words: its claim generator, the name in the signer's certificate and the digital source type of its
    actions. `source_type` is the IPTC `DigitalSourceType` of the XMP packet, as `trainedAlgorithmicMedia`. `software`
    wrote the file. `generator` names the tool whose text was recognised; `model`, `sampler`, `steps` and `seed` are
    from that text. A seed is text, since it may be larger than a JSON number can hold.

    Fields without a value are left out of the JSON.
    """

    found: bool = False
    c2pa: C2paState = "absent"
    c2pa_generator: ProvenanceText | None = None
    c2pa_signer: ProvenanceText | None = None
    c2pa_source_type: ProvenanceText | None = None
    source_type: ProvenanceText | None = None
    software: ProvenanceText | None = None
    generator: GeneratorTool | None = None
    model: ProvenanceText | None = None
    sampler: ProvenanceText | None = None
    steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    seed: Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,20}$")] | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the fields, where the serializer's return type would be any object."""
        fields: Any = {name: value for name, value in core.items() if name != "serialization"}
        return handler(fields)


NO_PROVENANCE: Final = Provenance()
"""Of a file that says nothing."""
