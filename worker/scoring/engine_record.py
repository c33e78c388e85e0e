"""The record of a compiled engine, and the check that it can run on this machine."""

import hashlib
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from worker.scoring.manifest import FileSpec, StrictModel

TensorRtBackend = Literal["tensorrt", "tensorrt-rtx"]
Backend = Literal["tensorrt", "tensorrt-rtx", "torch", "openvino"]

ComputeCapability = Annotated[str, StringConstraints(pattern=r"^[1-9]\d?\.\d$")]
"""A GPU's compute capability: `8.9`."""


class EngineMismatch(Exception):
    """An engine was built for another model, version or GPU. The message lists the differences and what to do."""


class BatchProfile(StrictModel):
    """The batch sizes of an engine, from `smallest` to `largest`, and the size that it is tuned for."""

    smallest: Annotated[int, Field(ge=1)] = 1
    best: Annotated[int, Field(ge=1)] = 16
    largest: Annotated[int, Field(ge=1, le=4096)] = 64

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.smallest <= self.best <= self.largest:
            raise ValueError(
                f"smallest {self.smallest}, best {self.best}, largest {self.largest} must be in ascending order"
            )
        return self

    def steps(self, factor: int) -> list[int]:
        """The sizes to which batches are padded, ascending, each at most `factor` times the one before."""
        powers = {factor**exponent for exponent in range(self.largest.bit_length())}
        return sorted({size for size in powers if self.smallest <= size < self.largest} | {self.best, self.largest})


class Target(StrictModel):
    """Backend, precision and GPU of an engine. Each target has one place in the repository."""

    backend: Backend
    compute_capability: ComputeCapability | None = None
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"]

    @model_validator(mode="after")
    def _is_sensible(self) -> Self:
        if self.backend == "openvino" and self.compute_capability is not None:
            raise ValueError("openvino runs on CPUs, which have no compute_capability")
        if self.backend in ("tensorrt", "tensorrt-rtx") and self.compute_capability is None:
            raise ValueError(f"{self.backend} needs the compute_capability of a GPU")
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether it is for a GPU. A torch engine may be for CPUs too."""
        return self.compute_capability is not None

    @property
    def name(self) -> str:
        """`tensorrt-rtx-sm89-fp16`, `torch-sm90-bf16`, `openvino-int8`."""
        gpu = [] if self.compute_capability is None else [f"sm{self.compute_capability.replace('.', '')}"]
        return "-".join([self.backend, *gpu, self.precision])


class EngineRecord(StrictModel):
    """Identity and origin of an engine: `sluice.engine/1`. Written after the files it names."""

    schema_: Literal["sluice.engine/1"] = Field(default="sluice.engine/1", alias="schema")
    target: Target
    backend_version: str
    model: str
    """The digest of the model's manifest."""
    profile: BatchProfile
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    files: Annotated[tuple[FileSpec, ...], Field(min_length=1, max_length=2)]
    """The towers and, for a model that judges prompts, its text tower, as TensorRT's engines or torch's graphs; or
    OpenVINO's graph and its weights, whose engine takes the text tower from the model."""
    bytes: Annotated[int, Field(ge=1)]
    built_at: datetime
    build_seconds: Annotated[float, Field(ge=0)]

    @property
    def digest(self) -> str:
        """Identity of the engine: sha256 over the target's name, the backend's version and the digests of all files. It
        includes the version because torch and OpenVINO compile kernels at start, so another version gives another
        engine.
        """
        parts = [self.target.name, self.backend_version, *(spec.sha256 for spec in self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def check(
        self, *, model: str | None = None, backend_version: str | None = None, compute_capability: str | None = None
    ) -> None:
        """Raises EngineMismatch if the engine was built for something else."""
        differs = self.differences(model=model, backend_version=backend_version, compute_capability=compute_capability)
        if differs:
            raise EngineMismatch(
                f"engine {self.target.name} cannot be used here: {'; '.join(differs)}; build it again with --rebuild"
            )

    def differences(
        self, *, model: str | None = None, backend_version: str | None = None, compute_capability: str | None = None
    ) -> list[str]:
        """The differences from the given values, as messages."""
        differs = []
        if model is not None and model != self.model:
            differs.append(f"it is of model {self.model}, this is {model}")
        if backend_version is not None and not self._runs_on_version(backend_version):
            differs.append(f"it was built by {self.target.backend} {self.backend_version}, this is {backend_version}")
        if compute_capability is not None and not self._runs_on(compute_capability):
            differs.append(
                f"it was built for compute capability {self.target.compute_capability}, this is {compute_capability}"
            )
        return differs

    def _runs_on_version(self, version: str) -> bool:
        if not self.version_compatible or self.target.backend != "tensorrt":
            return version == self.backend_version
        # A version compatible engine runs on its own and on later minor versions of the same major one.
        built, here = _numbers(self.backend_version), _numbers(version)
        return built[0] == here[0] and built <= here

    def _runs_on(self, compute_capability: str) -> bool:
        own = self.target.compute_capability
        if self.hardware_compatibility == "ampere_plus" and self.target.backend == "tensorrt":
            return _numbers(compute_capability) >= [8, 0]
        return own == compute_capability


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
