"""Reports on builds and comparisons: JSON for programs, one HTML page that needs nothing beside it for people."""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.scoring.engine_record import EngineRecord


class LayerReport(BaseModel):
    """One layer of an engine; `precision` is the type of its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    precision: str
    shapes: tuple[str, ...]


class BuildReport(BaseModel):
    """What was built: `sluice.build-report/1`.

    `layers_of` says whose layers are listed: the `engine`'s own, after fusion, or, where the machine that built it
    could not load it, the `network`'s that it was made of. `device_memory_bytes` is what one execution context wants
    besides the weights; null where the engine could not be loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["sluice.build-report/1"] = Field(default="sluice.build-report/1", alias="schema")
    record: EngineRecord
    layers_of: str
    layers: tuple[LayerReport, ...]
    device_memory_bytes: int | None

    @property
    def precisions(self) -> list[tuple[str, int]]:
        """How many layers give which type, the most frequent first."""
        return Counter(layer.precision or "none" for layer in self.layers).most_common()
