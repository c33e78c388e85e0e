"""Compiles a prepared graph with TensorRT or TensorRT for RTX: one code path for 10, 11 and RTX.

Uses only names that all three have, which a test checks against the real bindings; what only one has is asked for with
`hasattr` or stands behind its backend.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from trt_build.errors import BuildError
from worker.scoring.engine_record import BatchProfile, TensorRtBackend
from worker.scoring.tensorrt_binding import load_binding

log = structlog.get_logger(__name__)

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]

Report = Callable[[str, int, int], bool]
"""Called with a phase, steps done and steps in all; false ends the build."""


class BuildCancelled(BuildError):
    """The build was stopped."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to compile. `compute_capability` None: this machine's GPU, the only one that `tensorrt` can build for."""

    profile: BatchProfile
    compute_capability: str | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    workspace_bytes: int | None = None
    optimization_level: int | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `precision` is the type of its outputs."""

    name: str
    kind: str
    precision: str
    shapes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """An engine with what is known about it. `source` says whose layers these are: the `engine`'s own, after fusion,
    or, on a machine where it cannot be loaded, the `network`'s it was made of."""

    engine: bytes
    version: str
    seconds: float
    layers: tuple[Layer, ...]
    source: Literal["engine", "network"]
    device_memory_bytes: int | None
    timing_cache: bytes | None


class Compiler:
    """Compiles graphs with one backend. Not for use by several threads at once."""

    def __init__(self, backend: TensorRtBackend) -> None:
        """Raises BindingMissing."""
        self._backend = backend
        self._trt = load_binding(backend)
        self._logger = _logger(self._trt)
        self._builder = self._trt.Builder(self._logger)
        if self._builder is None:
            raise BuildError(f"{backend} cannot start here: {self._logger.said() or 'it does not say why'}")

    @property
    def version(self) -> str:
        return str(self._trt.__version__)

    def compute_capabilities(self) -> list[str] | None:
        """What can be built for without a GPU; None for a backend that needs the GPU it builds for."""
        if self._backend != "tensorrt-rtx":
            return None
        names = (name for name in dir(self._trt.ComputeCapability) if name.startswith("SM"))
        return sorted((f"{name[2:-1]}.{name[-1]}" for name in names), key=float)

    def compile(
        self,
        graph: bytes,
        options: BuildOptions,
        *,
        timing_cache: bytes | None = None,
        report: Report = lambda _phase, _done, _steps: True,
    ) -> Compiled:
        """Compiles a graph that `prepare_graph` made. Raises BuildError with what TensorRT said."""
        self._logger.clear()
        network = self._parse(graph)
        config = self._configure(network, options)
        monitor = _monitor(self._trt, report)
        config.progress_monitor = monitor
        # In RTX, which measures no kernels when it builds, a timing cache is a deprecated nothing.
        cache = None
        if self._backend == "tensorrt":
            cache = self._timing_cache(config, timing_cache)
        started = time.perf_counter()
        plan = self._builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - started
        if plan is None:
            if monitor.cancelled:
                raise BuildCancelled("the build was cancelled; what was finished before is kept")
            raise BuildError(f"{self._backend} {self.version} built no engine: {self._logger.said()}")
        engine = bytes(plan)
        layers, memory = self._inspect(engine, host_code=options.version_compatible)
        return Compiled(
            engine,
            self.version,
            seconds,
            layers or _network_layers(network),
            "engine" if layers else "network",
            memory,
            None if cache is None else bytes(cache.serialize()),
        )

    def _parse(self, graph: bytes) -> Any:
        flag = self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = self._builder.create_network(1 << int(flag))
        parser = self._trt.OnnxParser(network, self._logger)
        if not parser.parse(graph):
            problems = "; ".join(_first_line(parser.get_error(i).desc()) for i in range(parser.num_errors))
            raise BuildError(f"{self._backend} {self.version} does not take the graph: {problems}")
        return network

    def _configure(self, network: Any, options: BuildOptions) -> Any:
        trt = self._trt
        config = self._builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        profile = self._builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            batch, *rest = tensor.shape
            if batch != -1 or -1 in rest:
                raise BuildError(f"input {tensor.name} has shape {list(tensor.shape)}; only its batch may vary")
            sizes = options.profile
            profile.set_shape(tensor.name, *([n, *rest] for n in (sizes.smallest, sizes.best, sizes.largest)))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"the profile does not fit the graph: {self._logger.said()}")
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatibility != "none":
            level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper())
            config.hardware_compatibility_level = level
        if self._backend == "tensorrt-rtx" and options.compute_capability is not None:
            self._aim(config, options.compute_capability)
        return config

    def _aim(self, config: Any, compute_capability: str) -> None:
        name = f"SM{compute_capability.replace('.', '')}"
        known = self.compute_capabilities() or []
        if compute_capability not in known:
            raise BuildError(
                f"{self._backend} {self.version} builds for the compute capabilities {', '.join(known)}, and not for "
                f"{compute_capability}; build it with --backend tensorrt on a machine with such a GPU"
            )
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(self._trt.ComputeCapability, name), 0):
            raise BuildError(f"compute capability {compute_capability} was refused: {self._logger.said()}")

    def _timing_cache(self, config: Any, data: bytes | None) -> Any:
        """A cache of measured kernels; one that does not fit this GPU or version is left out and said so."""
        cache = config.create_timing_cache(data or b"")
        if not config.set_timing_cache(cache, False):
            log.warning("timing_cache_refused", reason=self._logger.said())
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def _inspect(self, engine: bytes, *, host_code: bool) -> tuple[tuple[Layer, ...], int | None]:
        """The engine's own layers and the memory it wants; nothing where this machine cannot load it."""
        runtime = self._trt.Runtime(self._logger)
        runtime.engine_host_code_allowed = host_code  # a version compatible engine carries its lean runtime
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            return (), None
        inspector = loaded.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return parse_layers(text), int(loaded.device_memory_size_v2)


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers of an engine inspector's JSON."""
    layers = []
    for entry in json.loads(text).get("Layers", []):
        if isinstance(entry, str):  # where only names were kept
            layers.append(Layer(entry, "", "", ()))
            continue
        outputs = [out for out in entry.get("Outputs", []) if isinstance(out, Mapping)]
        formats = sorted({str(out.get("Format/Datatype", out.get("Datatype", ""))) for out in outputs} - {""})
        shapes = tuple(str(out.get("Dimensions", "")) for out in outputs)
        kind = str(entry.get("LayerType", ""))
        layers.append(Layer(str(entry.get("Name", "")), kind, ", ".join(formats), shapes))
    return tuple(layers)


def _network_layers(network: Any) -> tuple[Layer, ...]:
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(number) for number in range(layer.num_outputs)]
        precisions = sorted({out.dtype.name.lower() for out in outputs})
        shapes = tuple(str(list(out.shape)) for out in outputs)
        layers.append(Layer(layer.name, layer.type.name.lower(), ", ".join(precisions), shapes))
    return tuple(layers)


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[0]


def _logger(trt: Any) -> Any:
    """TensorRT's log into ours; keeps the errors, to say why something failed. Made here, since its base class is only
    known once the binding is loaded."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message.strip())
                log.debug("tensorrt_error", message=message)
            elif severity == trt.ILogger.WARNING:
                log.debug("tensorrt_warning", message=message)

        def said(self) -> str:
            return "; ".join(self._errors[:3])

        def clear(self) -> None:
            self._errors.clear()

    return Logger()


def _monitor(trt: Any, report: Report) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, int] = {}
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self._phases[phase_name] = num_steps
            if not report(phase_name, 0, num_steps):
                self.cancelled = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            if not report(phase_name, step + 1, self._phases.get(phase_name, step + 1)):
                self.cancelled = True
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            steps = self._phases.pop(phase_name, 0)
            report(phase_name, steps, steps)

    return Monitor()
