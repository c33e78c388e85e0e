"""Runs one ONNX graph on the CPU with OpenVINO."""

import hashlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.light_imports import without_module
from worker.scoring.blob_cache import BlobCache
from worker.scoring.engine import BatchFailed
from worker.scoring.manifest import ManifestError

with without_module("openvino.tools.ovc"):  # converts models of other frameworks: 0.15 s of CPU time
    import openvino as ov

log = structlog.get_logger(__name__)

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → OpenVINO's name of the type and the shape of one row."""

_TYPES: Mapping[str, type[np.generic]] = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}


class OpenVinoGraph:
    """Runs batches through a graph. The first axis of every tensor is the batch.

    A batch is split into single rows that run in parallel, one stream per core. That was measured to be faster than
    larger requests, whose feature maps do not fit the CPU's caches. Thread-safe; concurrent batches share the cores.
    """

    def __init__(
        self,
        where: str,
        graph: bytes | tuple[bytes, bytes],
        inputs: Tensors,
        outputs: Tensors,
        *,
        threads: int | None,
        precision: str,
        cache: BlobCache | None = None,
    ) -> None:
        """`where`: the graph's name, for messages. `graph`: ONNX, or OpenVINO's graph and weights. `threads`: cores to
        use; None: all that this process may use. `precision`: `bf16` or `f32`. `cache`: the folder for compiled graphs.
        Raises ManifestError for a graph with other inputs or outputs.
        """
        core = ov.Core()
        self.streams = threads or len(os.sched_getaffinity(0))
        self.precision = precision if precision != "bf16" or computes_bf16() else "f32"
        self._outputs = outputs
        config = {
            "NUM_STREAMS": self.streams,
            "INFERENCE_NUM_THREADS": self.streams,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        compiled = _compiled(core, where, graph, inputs, outputs, config, cache)
        self._requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        blank = {name: np.zeros((1, *shape), _TYPES[kind]) for name, (kind, shape) in inputs.items()}
        for _ in range(self.streams):
            request = compiled.create_infer_request()
            # Warm-up on one thread: OpenVINO's binding initializes its NumPy support with the first array, and two
            # threads that do so concurrently deadlock (one holds the GIL, one the initialization).
            request.infer(blank, share_inputs=True)
            request.get_tensor(next(iter(outputs))).data  # noqa: B018  # the way back has a set-up of its own
            self._requests.put(request)
        self._workers = ThreadPoolExecutor(self.streams, thread_name_prefix="engine")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The outputs of a batch. Raises BatchFailed when OpenVINO fails or an output is not finite."""
        batch = len(next(iter(inputs.values())))
        outputs = {name: np.empty((batch, *shape), np.float32) for name, (_, shape) in self._outputs.items()}

        def run(row: int) -> None:
            request = self._requests.get()
            try:
                request.infer({name: rows[row : row + 1] for name, rows in inputs.items()}, share_inputs=True)
                for name, rows in outputs.items():
                    rows[row] = request.get_tensor(name).data[0]
            finally:
                self._requests.put(request)

        try:
            list(self._workers.map(run, range(batch)))
        except RuntimeError as error:
            raise BatchFailed(f"OpenVINO failed on a batch of {batch}: {error}") from error
        for name, rows in outputs.items():
            if not np.isfinite(rows).all():
                raise BatchFailed(f"tower {name!r} gave values that are not finite")
        return outputs

    def close(self) -> None:
        self._workers.shutdown()


def computes_bf16() -> bool:
    """Whether these CPUs compute in bfloat16. On others OpenVINO uses float32."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _compiled(
    core: Any,
    where: str,
    graph: bytes | tuple[bytes, bytes],
    inputs: Tensors,
    outputs: Tensors,
    config: Mapping[str, object],
    cache: BlobCache | None,
) -> Any:
    """The graph compiled for single rows, from the cache if possible. A cached graph was checked before it was
    stored.
    """
    key = _cache_key(core, graph, inputs, outputs, config) if cache is not None else ()
    blob = cache.read(key) if cache is not None else None
    if blob is not None:
        try:
            return core.import_model(io.BytesIO(blob), "CPU", config)
        except RuntimeError as error:
            log.warning("compiled_graph_refused", graph=where, reason=str(error))
    try:
        model = core.read_model(graph) if isinstance(graph, bytes) else core.read_model(*graph)
    except RuntimeError as error:
        raise ManifestError(f"{where}: OpenVINO cannot read the graph: {error}") from error
    _check(where, model, inputs, outputs)
    model.reshape({name: [1, *shape] for name, (_, shape) in inputs.items()})
    compiled = core.compile_model(model, "CPU", config)
    if cache is not None:
        cache.write(key, compiled.export_model().getvalue())
    return compiled


def _cache_key(
    core: Any,
    graph: bytes | tuple[bytes, bytes],
    inputs: Tensors,
    outputs: Tensors,
    config: Mapping[str, object],
) -> list[str]:
    """Everything that a compiled graph depends on: the graph, the settings, OpenVINO's version and the processor."""
    parts = (graph,) if isinstance(graph, bytes) else graph
    return [
        *(hashlib.sha256(part).hexdigest() for part in parts),
        repr((sorted(inputs.items()), sorted(outputs.items()), sorted(config.items()))),
        ov.__version__,
        core.get_property("CPU", "FULL_DEVICE_NAME"),
        " ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    ]


def _check(where: str, graph: ov.Model, inputs: Tensors, outputs: Tensors) -> None:
    for kind, found, wanted in (("inputs", graph.inputs, inputs), ("outputs", graph.outputs, outputs)):
        ports = {port.get_any_name(): port for port in found}
        if set(ports) != set(wanted):
            raise ManifestError(f"{where} has the {kind} {sorted(ports)}, the manifest names {sorted(wanted)}")
        for name, (dtype, shape) in wanted.items():
            port = ports[name]
            has = port.get_element_type().get_type_name(), port.get_partial_shape()
            expected = ov.PartialShape([-1, *shape])
            if has != (dtype, expected):
                raise ManifestError(
                    f"{where}: {name} is {has[0]}{has[1]}, the manifest means {dtype}{expected}; "
                    "export graph and manifest together"
                )
