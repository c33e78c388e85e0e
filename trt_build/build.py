"""Builds engines into a model repository, one after the other, each published as soon as it is done."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import openvino

from trt_build.compile import BuildCancelled, Compiled, Compiler, Options
from trt_build.errors import BuildError
from trt_build.graph import Precision, prepare_graph
from trt_build.openvino_build import CpuPrecision, Images, compile_openvino, openvino_layers
from trt_build.reports import BuildReport, LayerReport, render
from worker.scoring.cuda_device import CudaDevice, NoDevice
from worker.scoring.engine_record import BatchProfile, EngineMismatch, EngineRecord, Target, TensorRtBackend
from worker.scoring.manifest import FileSpec
from worker.scoring.model import Model
from worker.scoring.openvino_engine import MAX_BATCH
from worker.scoring.repository import Repository, Version
from worker.scoring.stores import RepositoryError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target: an engine `built` now, one `kept` from before, or a failure and why."""

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
        precision: Precision,
        compute_capabilities: Sequence[str],
        options: Options,
        *,
        rebuild: bool = False,
        progress: Progress = lambda _target, _phase, _done, _steps: True,
    ) -> Iterator[Outcome]:
        """Builds an engine for each compute capability; none given: for this machine's GPU.

        An engine that is there already, whole and of the same making, is kept. One of another making is refused unless
        `rebuild`. What fails does not stop the others. Raises BindingMissing, BuildError for a graph that no engine can
        be made of, NoDevice where a GPU is needed, and RepositoryError.
        """
        if backend != "tensorrt" and (options.version_compatible or options.hardware_compatibility != "none"):
            raise BuildError(
                f"{backend} has no engines for later versions or other GPUs: each runs on the version and the compute "
                "capability it was built for; leave --version-compatible and --hardware-compatibility out"
            )
        compiler = Compiler(backend)
        prompt = self._model.judging_prompts
        graphs = [prepare_graph(self._model.graph, precision)]
        if prompt is not None:
            graphs.append(prepare_graph(prompt.text, precision))
        targets = [
            Target(backend=backend, compute_capability=capability, precision=precision)
            for capability in self._capabilities(compiler, backend, compute_capabilities)
        ]
        for target in targets:
            try:
                kept = self._kept(target, compiler.version, options, rebuild)
                if kept is not None:
                    yield Outcome(target, "kept", kept)
                    continue
                yield Outcome(target, "built", self._build(compiler, graphs, target, options, progress))
            except BuildCancelled:
                raise
            except (BuildError, EngineMismatch) as error:
                yield Outcome(target, "failed", problem=f"{error}{_advice(target)}")

    def build_openvino(
        self,
        precision: CpuPrecision,
        calibration: Images = (),
        *,
        rebuild: bool = False,
        progress: Callable[[int], object] = lambda _images: None,
    ) -> Outcome:
        """Builds the CPU engine's graph; in int8, with the calibration images. Raises BuildError, EngineMismatch for
        one of another model that is there already, and RepositoryError."""
        target = Target(backend="openvino", precision=precision)
        there = self._repository.engine(self._version, target)
        if there is not None and not rebuild:
            there.check(model=self._model.manifest.digest)
            if self._is_whole(there):
                return Outcome(target, "kept", there)
        started = time.perf_counter()
        graph, weights = compile_openvino(self._model, precision, calibration, progress)
        files = {
            f"{hashlib.sha256(data).hexdigest()}.{kind}": data for kind, data in (("xml", graph), ("bin", weights))
        }
        record = EngineRecord(
            schema="sluice.engine/1",
            target=target,
            backend_version=openvino.__version__,
            model=self._model.manifest.digest,
            profile=BatchProfile(best=1, largest=MAX_BATCH),
            files=tuple(FileSpec(path=name, sha256=name.partition(".")[0]) for name in files),
            bytes=len(graph) + len(weights),
            built_at=self._now(),
            build_seconds=round(time.perf_counter() - started, 3),
        )
        layers = tuple(openvino_layers((graph, weights), precision))
        self._write(BuildReport(record=record, layers_of="engine", layers=layers, device_memory_bytes=None))
        self._repository.publish_engine(self._version, record, files)
        return Outcome(target, "built", record)

    def _write(self, report: BuildReport) -> None:
        target = report.record.target
        text = report.model_dump_json(by_alias=True, indent=2) + "\n"
        self._repository.write_report(self._version, target, "build.json", text)
        self._repository.write_report(self._version, target, "build.html", render("build.html.j2", report=report))

    def _is_whole(self, record: EngineRecord) -> bool:
        """Whether all of the engine is there: a build may have broken off, or a file may have been damaged since."""
        try:
            self._repository.engine_files(self._version, record)
        except RepositoryError:
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

    def _kept(self, target: Target, backend_version: str, options: Options, rebuild: bool) -> EngineRecord | None:
        """The engine that is there, when there is nothing to build."""
        record = self._repository.engine(self._version, target)
        if record is None or rebuild:
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
        self, compiler: Compiler, graphs: Sequence[bytes], target: Target, options: Options, progress: Progress
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
        record = self._record(built, target, options)
        memory = [part.device_memory_bytes for part in built if part.device_memory_bytes is not None]
        report = BuildReport(
            record=record,
            layers_of=built[0].source,
            layers=tuple(
                LayerReport(name=layer.name, kind=layer.kind, precision=layer.precision, shapes=layer.shapes)
                for part in built
                for layer in part.layers
            ),
            device_memory_bytes=sum(memory) if memory else None,
        )
        self._write(report)
        files = {spec.path: part.engine for spec, part in zip(record.files, built, strict=True)}
        self._repository.publish_engine(self._version, record, files)
        return record

    def _record(self, built: Sequence[Compiled], target: Target, options: Options) -> EngineRecord:
        digests = [hashlib.sha256(part.engine).hexdigest() for part in built]
        return EngineRecord(
            schema="sluice.engine/1",
            target=target,
            backend_version=built[0].version,
            model=self._model.manifest.digest,
            profile=options.profile,
            version_compatible=options.version_compatible,
            hardware_compatibility=options.hardware_compatibility,
            files=tuple(FileSpec(path=f"{digest}.engine", sha256=digest) for digest in digests),
            bytes=sum(len(part.engine) for part in built),
            built_at=self._now(),
            build_seconds=round(sum(part.seconds for part in built), 3),
        )


def _advice(target: Target) -> str:
    """What TensorRT does not say of a GPU that computes in half precision and in no other that is asked for here."""
    turing = target.compute_capability == "7.5" and target.precision != "fp16"
    return "; for compute capability 7.5 it builds in fp16 only: --precision fp16" if turing else ""


def _sizes(of: EngineRecord | Options) -> str:
    return f"{of.profile.smallest}:{of.profile.best}:{of.profile.largest}"
