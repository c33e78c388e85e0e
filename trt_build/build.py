"""Builds engines into a model repository, one after the other, each published as soon as it is done."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import openvino

from trt_build.compile import BuildCancelled, BuildOptions, Compiler
from trt_build.errors import BuildError
from trt_build.openvino_build import ImageViews, compile_openvino, openvino_layers
from trt_build.reports import BuildReport, LayerReport
from worker.html_report.pages import render
from worker.scoring.compiled import load_torch_engine
from worker.scoring.cuda_device import CudaDevice, NoDevice
from worker.scoring.engine_record import BatchProfile, EngineMismatch, EngineRecord, Target, TensorRtBackend
from worker.scoring.manifest import FileSpec
from worker.scoring.model import Model
from worker.scoring.openvino_engine import MAX_BATCH
from worker.scoring.precision import CpuPrecision, Precision, Quantised, TorchPrecision
from worker.scoring.repository import DamagedEngine, Repository, Version


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """The outcome for one target: an engine `built` now or `kept` from before, or a failure with its reason."""

    target: Target
    status: Literal["built", "kept", "failed"]
    record: EngineRecord | None = None
    problem: str = ""


Progress = Callable[[Target, str, int, int], bool]
"""Called with a target, a phase of its build, steps done and steps in all; false stops."""


class EngineBuilder:
    """Builds a model's engines into a repository that has the model. `now`: the time, for the records."""

    def __init__(
        self,
        repository: Repository,
        version: Version,
        model: Model,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._repository = repository
        self._version = version
        self._model = model
        self._now = now

    def build(
        self,
        backend: TensorRtBackend,
        precision: Precision | Quantised,
        compute_capabilities: Sequence[str],
        options: BuildOptions,
        *,
        calibration: Sequence[ImageViews] = (),
        rebuild: bool = False,
        progress: Progress = lambda _target, _phase, _done, _steps: True,
    ) -> Iterator[BuildOutcome]:
        """Builds an engine of TensorRT for each compute capability; none given: for this machine's GPU.

        int8 and fp8 want calibration images; what is not quantised computes in what the model was measured in, else in
        fp16. An engine that is there already, whole and of the same making, is kept. One of another making is refused
        unless `rebuild`. What fails does not stop the others. Raises BindingMissing, BuildError for a graph that no
        engine can be made of, BuildCancelled when `progress` said so, NoDevice where a GPU is needed, and
        RepositoryError.
        """
        if backend != "tensorrt" and (options.version_compatible or options.hardware_compatibility != "none"):
            raise BuildError(
                f"{backend} has no engines for later versions or other GPUs: each runs on the version and the compute "
                "capability it was built for; leave --version-compatible and --hardware-compatibility out"
            )
        compiler = Compiler(backend)
        graphs: list[bytes] = []
        targets = [
            Target(backend=backend, compute_capability=capability, precision=precision)
            for capability in self._capabilities(compiler, backend, compute_capabilities)
        ]
        for target in targets:
            if standing := self._standing(target, compiler.version, options, rebuild):
                yield standing
                continue
            graphs = graphs or _prepare(self._model, target, calibration, progress)
            try:
                record = self._build(compiler, graphs, target, options, progress)
            except BuildCancelled:
                raise
            except BuildError as error:
                yield BuildOutcome(target, "failed", problem=f"{error}{_advice(target)}")
                continue
            yield BuildOutcome(target, "built", record)

    def build_torch(
        self,
        precision: TorchPrecision,
        compute_capabilities: Sequence[str],
        profile: BatchProfile,
        *,
        rebuild: bool = False,
    ) -> Iterator[BuildOutcome]:
        """Builds torch's engine for each compute capability; none given: for this machine's GPU, or its processors.

        They are the same graphs, from which torch makes its kernels where it starts; each has a record, since each is
        compared on its own kind of GPU. Kept and refused as TensorRT's are. Raises BindingMissing, BuildError,
        EngineError for a graph that gives nothing of use, NoDevice for a GPU that torch does not see, RepositoryError.
        """
        version = load_torch_engine().version()
        from trt_build.torch_build import own_compute_capability, prepare_torch, torch_layers

        options = BuildOptions(profile)
        graphs: list[bytes] = []
        seconds = 0.0
        capabilities: Sequence[str | None] = compute_capabilities or [own_compute_capability()]
        for capability in capabilities:
            target = Target(backend="torch", compute_capability=capability, precision=precision)
            if standing := self._standing(target, version, options, rebuild):
                yield standing
                continue
            if not graphs:
                started = time.perf_counter()
                graphs = prepare_torch(self._model, precision)
                seconds = time.perf_counter() - started
            record = self._record(target, version, options, ("onnx",) * len(graphs), graphs, seconds)
            layers = tuple(torch_layers(graphs))
            self._publish(
                BuildReport(record=record, layers_of="network", layers=layers, device_memory_bytes=None), graphs
            )
            yield BuildOutcome(target, "built", record)

    def build_openvino(
        self,
        precision: CpuPrecision,
        calibration: Sequence[ImageViews] = (),
        *,
        rebuild: bool = False,
        progress: Callable[[int], object] = lambda _images: None,
    ) -> BuildOutcome:
        """Builds the CPU engine's graph; in int8, with the calibration images. Raises BuildError, EngineMismatch for
        one of another model that is there already, and RepositoryError."""
        target = Target(backend="openvino", precision=precision)
        there = None if rebuild else self._repository.engine(self._version, target)
        if there is not None:
            there.check(model=self._model.manifest.digest)
            if self._is_whole(there):
                return BuildOutcome(target, "kept", there)
        started = time.perf_counter()
        files = compile_openvino(self._model, precision, calibration, progress)
        options = BuildOptions(BatchProfile(best=1, largest=MAX_BATCH))
        seconds = time.perf_counter() - started
        record = self._record(target, openvino.__version__, options, ("xml", "bin"), files, seconds)
        layers = tuple(openvino_layers(files, precision))
        self._publish(BuildReport(record=record, layers_of="engine", layers=layers, device_memory_bytes=None), files)
        return BuildOutcome(target, "built", record)

    def _publish(self, report: BuildReport, files: Sequence[bytes]) -> None:
        record = report.record
        text = report.model_dump_json(by_alias=True, indent=2) + "\n"
        self._repository.write_report(self._version, record.target, "build.json", text)
        self._repository.write_report(
            self._version, record.target, "build.html", render("trt_build", "build.html.j2", report=report)
        )
        named = {spec.path: data for spec, data in zip(record.files, files, strict=True)}
        self._repository.publish_engine(self._version, record, named)

    def _is_whole(self, record: EngineRecord) -> bool:
        """Whether all of the engine is there: a build may have broken off, or a file may have been damaged since."""
        try:
            self._repository.engine_files(self._version, record)
        except DamagedEngine:
            return False
        return True

    def _capabilities(self, compiler: Compiler, backend: str, wanted: Sequence[str]) -> Sequence[str]:
        if compiler.compute_capabilities() is not None and wanted:
            return wanted
        try:
            here = CudaDevice().compute_capability
        except NoDevice as error:
            if compiler.compute_capabilities() is None:
                raise
            raise BuildError(f"{error}; or name the GPUs to build for: --compute-capability 8.9,12.0") from error
        if wanted and list(wanted) != [here]:
            raise BuildError(
                f"{backend} builds for the GPU of this machine only, which has compute capability {here}; run it on a "
                "machine with the other GPU, or use --backend tensorrt-rtx, which needs none"
            )
        return [here]

    def _standing(
        self, target: Target, backend_version: str, options: BuildOptions, rebuild: bool
    ) -> BuildOutcome | None:
        """The outcome for an existing engine: kept, or failed when it may not be replaced without `rebuild`."""
        try:
            record = self._kept(target, backend_version, options, rebuild)
        except (DamagedEngine, EngineMismatch) as error:
            return BuildOutcome(target, "failed", problem=str(error))
        return None if record is None else BuildOutcome(target, "kept", record)

    def _kept(self, target: Target, backend_version: str, options: BuildOptions, rebuild: bool) -> EngineRecord | None:
        """The engine that is there, when there is nothing to build."""
        record = None if rebuild else self._repository.engine(self._version, target)
        if record is None:
            return None
        record.check(model=self._model.manifest.digest, backend_version=backend_version)
        differs = [
            f"{name} was {before}, now {wanted}"
            for name, before, wanted in (
                ("profile", _sizes(record), _sizes(options)),
                ("version_compatible", record.version_compatible, options.version_compatible),
                ("hardware_compatibility", record.hardware_compatibility, options.hardware_compatibility),
            )
            if before != wanted
        ]
        if differs:
            raise EngineMismatch(
                f"engine {target.name} is there with other options: {'; '.join(differs)}; use --rebuild"
            )
        return record if self._is_whole(record) else None

    def _build(
        self, compiler: Compiler, graphs: Sequence[bytes], target: Target, options: BuildOptions, progress: Progress
    ) -> EngineRecord:
        """Compiles the towers and, after them, the text tower of a model that judges prompts."""
        cache_name = re.sub(r"[^\w.-]", "_", f"{target.name}-{compiler.version}.timings")
        built = []
        for graph in graphs:
            built.append(
                compiler.compile(
                    graph,
                    replace(options, compute_capability=target.compute_capability),
                    timing_cache=self._repository.read_cache(cache_name),
                    report=lambda phase, done, steps: progress(target, phase, done, steps),
                )
            )
            timings = built[-1].timing_cache
            if timings is not None:
                self._repository.write_cache(cache_name, timings)
        seconds = sum(part.seconds for part in built)
        engines = [part.engine for part in built]
        memory = [part.device_memory_bytes for part in built if part.device_memory_bytes is not None]
        report = BuildReport(
            record=self._record(target, built[0].version, options, ("engine",) * len(built), engines, seconds),
            layers_of=built[0].source,
            layers=tuple(
                LayerReport(name=layer.name, kind=layer.kind, precision=layer.precision, shapes=layer.shapes)
                for part in built
                for layer in part.layers
            ),
            device_memory_bytes=sum(memory) if memory else None,
        )
        self._publish(report, engines)
        return report.record

    def _record(
        self,
        target: Target,
        backend_version: str,
        options: BuildOptions,
        kinds: Sequence[str],
        files: Sequence[bytes],
        seconds: float,
    ) -> EngineRecord:
        """`kinds`: what the files' names end in; they are named by their content."""
        digests = [hashlib.sha256(data).hexdigest() for data in files]
        return EngineRecord(
            target=target,
            backend_version=backend_version,
            model=self._model.manifest.digest,
            profile=options.profile,
            version_compatible=options.version_compatible,
            hardware_compatibility=options.hardware_compatibility,
            files=tuple(
                FileSpec(path=f"{digest}.{kind}", sha256=digest) for digest, kind in zip(digests, kinds, strict=True)
            ),
            bytes=sum(len(data) for data in files),
            built_at=self._now(),
            build_seconds=round(seconds, 3),
        )


def _prepare(model: Model, target: Target, calibration: Sequence[ImageViews], progress: Progress) -> list[bytes]:
    """The graphs of towers and text tower. Raises BuildError."""
    try:
        from trt_build.quantise import quantise_graph
        from worker.scoring.graph_precision import prepare_graphs  # it needs onnx, which OpenVINO's builds do without
    except ImportError as error:
        backend = target.backend
        raise BuildError(f"building for {backend} needs onnx ({error}); pip install 'sluice[{backend}]'") from error

    def calibrated(images: int) -> None:
        if not progress(target, "calibrating", images, len(calibration)):
            raise BuildCancelled("the build was cancelled before any engine of it was built")

    rest = model.manifest.precision or "fp16"
    match target.precision:
        case "int8" | "fp8":
            _, *text = prepare_graphs(model, rest)
            return [quantise_graph(model.graph, target.precision, rest, calibration, calibrated), *text]
        case precision:
            return prepare_graphs(model, precision)


def _advice(target: Target) -> str:
    """A hint for a GPU that does not support the precision, which TensorRT's message does not mention."""
    capability = float(target.compute_capability or 0)
    if target.precision == "fp8" and capability < 8.9:
        return "; fp8 needs compute capability 8.9 or later: --precision int8"
    turing = capability == 7.5 and target.precision != "fp16"
    return "; for compute capability 7.5 it builds in fp16 only: --precision fp16" if turing else ""


def _sizes(of: EngineRecord | BuildOptions) -> str:
    return f"{of.profile.smallest}:{of.profile.best}:{of.profile.largest}"
