"""The CPU engine: OpenVINO running the towers' ONNX graph."""

import os
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import openvino as ov
import structlog

from worker.scoring.engine import EngineError, Features, Prompts, Views
from worker.scoring.manifest import ManifestError, ModelManifest
from worker.scoring.model import Model

log = structlog.get_logger(__name__)

MAX_BATCH = 64

PRECISION = "bf16"
"""What convolutions compute in, on processors that have it; elsewhere OpenVINO keeps float32. For mst-lite it is
twice as fast, and ranks images alike to 0.994 (ops/benchmarks/lab_notebook.md)."""


class OpenVinoEngine:
    """Runs a model's towers on the CPU.

    A batch is cut into single images that run side by side, one stream per core: measured faster than larger requests,
    whose maps leave the caches. Safe to call from several threads; their batches share the cores.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int | None = None,
        precision: str = PRECISION,
        prebuilt: tuple[bytes, bytes] | None = None,
    ) -> None:
        """`threads`: cores to use; absent: all that this process may use. `precision`: what to compute in, `bf16` or
        `f32`. `prebuilt`: the towers as OpenVINO's own graph and weights, in place of the model's; `sluice build` makes
        such ones.

        Raises ManifestError for a graph that is not what the manifest says.
        """
        self._manifest = model.manifest
        core = ov.Core()
        try:
            graph = core.read_model(model.graph) if prebuilt is None else core.read_model(*prebuilt)
        except RuntimeError as error:
            raise ManifestError(f"{model.manifest.name}: OpenVINO cannot read the graph: {error}") from error
        _check_graph(graph, model.manifest)
        graph.reshape({name: [1, *view.shape] for name, view in model.manifest.views.items()})
        streams = threads or len(os.sched_getaffinity(0))
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "INFERENCE_PRECISION_HINT": precision if precision.upper() in _capabilities(core) else "f32",
            },
        )
        self._requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        blank = {name: np.zeros((1, *view.shape), np.uint8) for name, view in model.manifest.views.items()}
        for _ in range(streams):
            request = compiled.create_infer_request()
            # Warms up, from one thread: OpenVINO's binding sets itself up for NumPy at the first array it gets, and two
            # threads that do so at once wait for each other for ever (one holds the GIL, one the set-up).
            request.infer(blank, share_inputs=True)
            request.get_tensor(model.manifest.towers[0].name).data  # noqa: B018  # the way back has a set-up of its own
            self._requests.put(request)
        self._workers = ThreadPoolExecutor(streams, thread_name_prefix="engine")
        log.info("engine_ready", model=model.manifest.name, digest=model.manifest.digest, streams=streams)

    @property
    def max_batch(self) -> int:
        return MAX_BATCH

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:  # noqa: ARG002
        """The features of a batch. Raises EngineError when a view is missing, of a wrong shape or dtype, or when
        OpenVINO fails."""
        batch = self._check(views)
        features = {tower.name: np.empty((batch, tower.features), np.float32) for tower in self._manifest.towers}

        def run(row: int) -> None:
            request = self._requests.get()
            try:
                request.infer({name: pixels[row : row + 1] for name, pixels in views.items()}, share_inputs=True)
                for name, rows in features.items():
                    rows[row] = request.get_tensor(name).data[0]
            finally:
                self._requests.put(request)

        try:
            list(self._workers.map(run, range(batch)))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on a batch of {batch}: {error}") from error
        for name, rows in features.items():
            if not np.isfinite(rows).all():
                raise EngineError(f"tower {name!r} gave values that are not finite")
        return features

    def close(self) -> None:
        self._workers.shutdown()

    def _check(self, views: Views) -> int:
        specs = self._manifest.views
        if set(views) != set(specs):
            raise EngineError(f"got the views {sorted(views)}, the model needs {sorted(specs)}")
        batches = {len(pixels) for pixels in views.values()}
        for name, pixels in views.items():
            if pixels.dtype != np.uint8 or pixels.shape[1:] != specs[name].shape:
                raise EngineError(
                    f"view {name!r} is {pixels.dtype}{list(pixels.shape)}, "
                    f"the model needs uint8{['batch', *specs[name].shape]}"
                )
            if not pixels.flags.c_contiguous:
                raise EngineError(f"view {name!r} is not contiguous")
        if len(batches) != 1 or not 0 < max(batches) <= MAX_BATCH:
            raise EngineError(
                f"views of {sorted(batches)} images; one batch has 1 to {MAX_BATCH}, the same in all views"
            )
        return batches.pop()


def _check_graph(graph: ov.Model, manifest: ModelManifest) -> None:
    """Raises ManifestError unless inputs and outputs are the manifest's views and towers."""
    inputs = {port.get_any_name(): port for port in graph.inputs}
    outputs = {port.get_any_name(): port for port in graph.outputs}
    where = f"{manifest.name}: {manifest.graph.path}"
    for kind, ports, wanted in (
        ("inputs", inputs, {name: ("u8", view.shape) for name, view in manifest.views.items()}),
        ("outputs", outputs, {tower.name: ("f32", (tower.features,)) for tower in manifest.towers}),
    ):
        if set(ports) != set(wanted):
            raise ManifestError(f"{where} has the {kind} {sorted(ports)}, the manifest names {sorted(wanted)}")
        for name, (dtype, shape) in wanted.items():
            port = ports[name]
            found = port.get_element_type().get_type_name(), str(port.get_partial_shape())
            expected = ov.PartialShape([-1, *shape])
            if found[0] != dtype or port.get_partial_shape() != expected:
                raise ManifestError(
                    f"{where}: {name} is {found[0]}{found[1]}, the manifest means {dtype}{expected}; "
                    "export graph and manifest together"
                )


def _capabilities(core: ov.Core) -> list[str]:
    capabilities: list[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capabilities
