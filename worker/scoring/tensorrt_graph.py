"""Runs one compiled graph on a GPU with TensorRT or TensorRT for RTX."""

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.scoring.cuda_device import CapturedGraph, CudaDevice, DeviceLost, OutOfDeviceMemory, device_lost
from worker.scoring.engine import BatchFailed, EngineError
from worker.scoring.engine_record import EngineRecord

log = structlog.get_logger(__name__)

LANES = 2
"""Concurrent batches on the GPU: while one computes, the other is copied."""

Tensors = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Name → shape of one row and type."""

_NO_MEMORY = re.compile(r"out ?of ?memory", re.IGNORECASE)


class BadEngine(EngineError):
    """The engine's file cannot run with this TensorRT or on this GPU, or is of another model."""


@dataclass(slots=True)
class _Lane:
    """Resources of one batch in flight: a stream, and buffers for the largest batch.

    Each batch size has its own execution context, whose shapes never change, because a context may keep shape-dependent
    data in memory that its CUDA graph reads again. The contexts are used one at a time and share one scratch memory, as
    NVIDIA recommends for graphs of several shapes.
    """

    stream: int
    scratch: int = 0
    host: dict[str, NDArray[Any]] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)
    contexts: dict[int, Any] = field(default_factory=dict)
    graphs: dict[int, CapturedGraph] = field(default_factory=dict)


class TensorRtGraph:
    """Runs batches through a graph. The first axis of every tensor is the batch.

    All memory is allocated at construction: per lane, pinned host memory and device memory for the largest batch. A
    batch is padded to the next of a few sizes: the powers of two in the engine's profile, its best and its largest
    size. Under `tensorrt`, upload, graph and download of each size are one CUDA graph; TensorRT for RTX captures graphs
    itself. Thread-safe: each batch waits for a free lane.
    """

    def __init__(
        self,
        record: EngineRecord,
        engine: bytes,
        inputs: Tensors,
        outputs: Tensors,
        *,
        device: CudaDevice,
        binding: Any,
        lanes: int = LANES,
    ) -> None:
        """`record`: the engine's record, already checked. Raises BadEngine if the engine does not load or has other
        tensors, OutOfDeviceMemory and DeviceLost.
        """
        self._trt = binding
        self._device = device
        self._inputs = inputs
        self._outputs = outputs
        self._rtx = record.target.backend == "tensorrt-rtx"
        self._largest = record.profile.largest
        self._sizes = record.profile.steps(2)
        self._said = _Said()
        self._logger = _logger(self._trt, self._said.add)
        self._runtime = self._trt.Runtime(self._logger)
        if record.version_compatible:
            # It carries the lean runtime that built it, code that TensorRT loads only if told so. The file is the one
            # that the repository's record names by its digest.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise self._failure(f"{record.target.name} does not load", BadEngine)
        self._check_tensors()
        self._kernels: Any = None
        self._strategy = self._allocation()
        self._lanes: list[_Lane] = []
        self._free: SimpleQueue[_Lane | None] = SimpleQueue()
        self._lost: DeviceLost | None = None
        try:
            for _ in range(lanes):
                self._warm_up(self._make_lane())
        except BaseException:
            self._release()
            raise
        for lane in self._lanes:
            self._free.put(lane)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The outputs of a batch with valid tensors. Raises BatchFailed, or DeviceLost if only a new process helps."""
        if self._lost is not None:
            raise DeviceLost(str(self._lost))
        batch = len(next(iter(inputs.values())))
        size = next(size for size in self._sizes if size >= batch)
        lane = self._take()
        try:
            self._device.activate()
            for name, rows in inputs.items():
                lane.host[name][:batch] = rows
                lane.host[name][batch:size] = 0
            self._run(lane, size)
            outputs = {name: lane.host[name][:batch].copy() for name in self._outputs}
        except EngineError as error:
            lost = error if isinstance(error, DeviceLost) else self._settle(lane)
            if lost is None:
                raise
            self._lost = lost
            raise lost from (error if lost is not error else None)
        finally:
            self._free.put(lane)
        for name, rows in outputs.items():
            if not np.isfinite(rows).all():
                raise BatchFailed(f"tower {name!r} gave values that are not finite")
        return outputs

    def close(self) -> None:
        """Waits for the batches in progress, then frees everything, including the engine's weights."""
        for _ in range(len(self._lanes)):
            self._take()
        self._free.put(None)
        self._release()

    def _take(self) -> _Lane:
        lane = self._free.get()
        if lane is None:
            self._free.put(None)  # for whoever waits too
            raise BatchFailed("the engine is closed")
        return lane

    def _settle(self, lane: _Lane) -> DeviceLost | None:
        """Waits for the work of a failed batch, which still uses the lane's buffers. TensorRT reports only that it
        failed; if the GPU is lost, this wait fails too.
        """
        try:
            self._device.synchronize(lane.stream)
        except DeviceLost as lost:
            return lost
        except EngineError as error:
            return device_lost(error)
        return None

    def _release(self) -> None:
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            frees: list[tuple[Callable[[Any], None], Any]] = [
                *((self._device.destroy_graph, graph) for graph in lane.graphs.values()),
                *((self._device.free, pointer) for pointer in (*lane.device.values(), lane.scratch) if pointer),
                *((self._device.unpin, array) for array in lane.host.values()),
                (self._device.destroy_stream, lane.stream),
            ]
            # What a start that failed has begun may still run, and contexts use what is freed.
            self._freed(self._device.synchronize, lane.stream)
            lane.contexts = {}
            lane.host = {}
            for free, resource in frees:
                self._freed(free, resource)
        self._strategy = self._kernels = self._engine = self._runtime = None

    def _freed(self, free: Callable[[Any], None], resource: Any) -> None:
        try:
            self._device.activate()
            free(resource)
        except EngineError as error:  # a lost device has taken it along
            log.debug("not_freed", error=str(error))

    def _make_lane(self) -> _Lane:
        lane = _Lane(self._device.stream())
        self._lanes.append(lane)
        for name, (shape, dtype) in {**self._inputs, **self._outputs}.items():
            lane.host[name] = self._device.pinned((self._largest, *shape), dtype)
            lane.device[name] = self._device.allocate(lane.host[name].nbytes)
        memory = int(self._engine.device_memory_size_v2)
        if memory:
            lane.scratch = self._device.allocate(memory)
        for size in self._sizes:
            lane.contexts[size] = self._make_context(lane, size, memory)
        return lane

    def _make_context(self, lane: _Lane, size: int, memory: int) -> Any:
        context = self._engine.create_execution_context(self._strategy)
        if context is None:
            raise self._failure("no execution context")
        if memory:
            context.set_device_memory(lane.scratch, memory)
        for name, pointer in lane.device.items():
            if not context.set_tensor_address(name, pointer):
                raise self._failure(f"the engine has no tensor {name}", BadEngine)
        for name, (shape, _) in self._inputs.items():
            if not context.set_input_shape(name, (size, *shape)):
                raise self._failure(f"the engine does not take {size} of {name!r}", BadEngine)
        return context

    def _warm_up(self, lane: _Lane) -> None:
        """Runs every size once, which loads kernels and modules, and records its graph."""
        for size in self._sizes:
            for name in self._inputs:
                lane.host[name][:size] = 0
            self._enqueue(lane, size)
            self._device.synchronize(lane.stream)
            if not self._rtx:
                self._capture(lane, size)
            # A graph goes to the GPU when it is first launched; RTX makes its own once the kernels are there.
            self._run(lane, size)

    def _capture(self, lane: _Lane, size: int) -> None:
        """Records the CUDA graph of a size. The size must have run once (TensorRT, CUDA graphs). An engine that cannot
        be captured runs without a graph.
        """
        try:
            with self._device.capture(lane.stream) as graph:
                self._enqueue(lane, size)
        except (DeviceLost, OutOfDeviceMemory):
            raise
        except EngineError as error:
            log.warning("graph_not_captured", batch=size, reason=str(error))
        else:
            lane.graphs[size] = graph

    def _run(self, lane: _Lane, size: int) -> None:
        graph = lane.graphs.get(size)
        if graph is None:
            self._enqueue(lane, size)
        else:
            self._device.launch(graph, lane.stream)
        self._device.synchronize(lane.stream)

    def _enqueue(self, lane: _Lane, size: int) -> None:
        """Starts upload, graph and download of the first `size` rows."""
        for name in self._inputs:
            self._device.upload(lane.device[name], lane.host[name][:size], lane.stream)
        self._said.clear()
        if not lane.contexts[size].execute_async_v3(lane.stream):
            raise self._failure(f"TensorRT failed on a batch of {size}")
        for name in self._outputs:
            self._device.download(lane.host[name][:size], lane.device[name], lane.stream)

    def _allocation(self) -> Any:
        """What contexts are made with: scratch memory is ours to give. RTX also compiles kernels for a shape when it
        first meets it, before it goes on, shares them between contexts, and captures graphs by itself."""
        given = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._rtx:
            return given
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(given)
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        # Contexts go on reading it, and the binding is not known to keep it alive for them.
        self._kernels = config.create_runtime_cache()
        config.set_runtime_cache(self._kernels)
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config

    def _failure(self, what: str, kind: type[EngineError] = BatchFailed) -> EngineError:
        """The error for a failure in TensorRT, with TensorRT's message. Only the message shows that memory ran out."""
        said = self._said.take() or "TensorRT gave no reason"
        if _NO_MEMORY.search(said):
            return OutOfDeviceMemory(f"{what}: {said}; use a smaller batch, or fewer engines on this GPU")
        return kind(f"{what}: {said}")

    def _check_tensors(self) -> None:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        wanted = {**self._inputs, **self._outputs}
        if set(names) != set(wanted):
            raise BadEngine(f"the engine has the tensors {sorted(names)}, the manifest names {sorted(wanted)}")
        types: Mapping[type[np.generic], Any] = {
            np.uint8: self._trt.DataType.UINT8,
            np.int32: self._trt.DataType.INT32,
            np.float32: self._trt.DataType.FLOAT,
        }
        for name, (shape, dtype) in wanted.items():
            found = tuple(self._engine.get_tensor_shape(name))
            if found != (-1, *shape) or self._engine.get_tensor_dtype(name) != types[dtype]:
                raise BadEngine(
                    f"tensor {name} of the engine is {self._engine.get_tensor_dtype(name)}{list(found)}, the manifest "
                    f"means {np.dtype(dtype).name}{[-1, *shape]}; build it again with --rebuild"
                )


class _Said(threading.local):
    """The last errors that TensorRT told each thread of: it logs on the thread that calls it, and another batch's want
    of memory is none of this one's."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=3)

    def add(self, error: str) -> None:
        self._errors.append(error)

    def clear(self) -> None:
        self._errors.clear()

    def take(self) -> str:
        said = "; ".join(self._errors)
        self._errors.clear()
        return said


def _logger(trt: Any, said: Callable[[str], None]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Writes TensorRT's log to ours; `said` gets the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                said(message.strip())
                log.warning("tensorrt_error", message=message)
            elif severity == trt.ILogger.WARNING:
                log.debug("tensorrt_warning", message=message)

    return Logger()
