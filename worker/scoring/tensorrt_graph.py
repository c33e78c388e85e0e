"""One compiled graph on a GPU, by TensorRT or TensorRT for RTX."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.scoring.cuda_device import CapturedGraph, CudaDevice, DeviceLost
from worker.scoring.engine import EngineError
from worker.scoring.engine_record import EngineRecord

log = structlog.get_logger(__name__)

LANES = 2
"""Batches on the GPU at once: while one computes, the other's pixels and features travel."""

Tensors = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Name → shape of one row and type."""


class BadEngine(EngineError):
    """The engine's file is not one that this TensorRT and this GPU can run, or not of this model."""


@dataclass(slots=True)
class _Lane:
    """What one batch needs on its way: a stream, an execution context, and buffers for the largest batch."""

    context: Any
    stream: int
    host: dict[str, NDArray[Any]] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)
    graphs: dict[int, CapturedGraph] = field(default_factory=dict)
    batch: int = 0
    """The batch size that the context is set to."""


class TensorRtGraph:
    """Runs batches through a graph whose every tensor has the batch as first axis.

    Everything is allocated when it is made: pinned host memory and device memory for the largest batch, per lane. Under
    `tensorrt`, upload, graph and download of each size in `fixed_batches` are one CUDA graph, and a batch of another
    size is filled up to the next of them; TensorRT for RTX, which compiles kernels for a shape while it is first used,
    captures graphs by itself. Safe to call from several threads: each batch takes a lane and waits for one that is
    free.
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
        fixed_batches: Sequence[int] | None = None,
    ) -> None:
        """`record`: of the engine that this graph is of; it has been checked. `fixed_batches`: sizes to make graphs of;
        absent: the powers of two in the engine's profile, and its largest.

        Raises BadEngine for one that does not load, or has other tensors, and OutOfDeviceMemory or DeviceLost as they
        occur.
        """
        self._trt = binding
        self._device = device
        self._inputs = inputs
        self._outputs = outputs
        self._rtx = record.target.backend == "tensorrt-rtx"
        self._largest = record.profile.largest
        self._smallest = record.profile.smallest
        self._fixed = sorted(fixed_batches) if fixed_batches is not None else _powers(self._smallest, self._largest)
        self._said: deque[str] = deque(maxlen=3)
        self._runtime = self._trt.Runtime(_logger(self._trt, self._said.append))
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BadEngine(f"{record.target.name} does not load: {'; '.join(self._said) or 'no reason given'}")
        self._check_tensors()
        self._config = self._runtime_config()
        self._all: list[_Lane] = []
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        self._lost: DeviceLost | None = None
        try:
            for _ in range(lanes):
                self._warm_up(self._make_lane())
            for lane in self._all:
                self._free.put(lane)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The outputs of a batch, whose tensors are as they should be. Raises EngineError: DeviceLost when only a new
        process can go on."""
        if self._lost is not None:
            raise DeviceLost(str(self._lost))
        batch = len(next(iter(inputs.values())))
        size = self._size_for(batch)
        lane = self._free.get()
        try:
            self._device.activate()
            for name, rows in inputs.items():
                lane.host[name][:batch] = rows
                lane.host[name][batch:size] = 0
            self._run(lane, size)
            outputs = {name: lane.host[name][:batch].copy() for name in self._outputs}
        except DeviceLost as error:
            self._lost = error
            raise
        except EngineError:
            lane.batch = 0  # whatever state the context is in, its shapes are set anew
            raise
        finally:
            self._free.put(lane)
        for name, rows in outputs.items():
            if not np.isfinite(rows).all():
                raise EngineError(f"tower {name!r} gave values that are not finite")
        return outputs

    def close(self) -> None:
        for lane in self._all:
            frees: list[tuple[Callable[[Any], None], Any]] = [
                *((self._device.destroy_graph, graph) for graph in lane.graphs.values()),
                *((self._device.free, pointer) for pointer in lane.device.values()),
                *((self._device.unpin, array) for array in lane.host.values()),
                (self._device.destroy_stream, lane.stream),
            ]
            lane.host = {}
            for free, resource in frees:
                try:
                    free(resource)
                except EngineError as error:  # a lost device has taken it along
                    log.debug("not_freed", error=str(error))
        self._all = []

    def _make_lane(self) -> _Lane:
        context = self._engine.create_execution_context(*(() if self._config is None else (self._config,)))
        if context is None:
            raise EngineError(f"no execution context: {'; '.join(self._said)}")
        lane = _Lane(context, self._device.stream())
        self._all.append(lane)
        for name, (shape, dtype) in {**self._inputs, **self._outputs}.items():
            lane.host[name] = self._device.pinned((self._largest, *shape), dtype)
            lane.device[name] = self._device.allocate(lane.host[name].nbytes)
            if not context.set_tensor_address(name, lane.device[name]):
                raise BadEngine(f"the engine has no tensor {name}")
        return lane

    def _warm_up(self, lane: _Lane) -> None:
        """Runs every fixed size once, which makes kernels and lazily loaded modules ready, and records its graph."""
        for size in self._fixed:
            for name in self._inputs:
                lane.host[name][:size] = 0
            self._enqueue(lane, size)
            self._device.synchronize(lane.stream)
            if not self._rtx:
                # A first run must have taken the new shapes in before they are captured (TensorRT, CUDA graphs).
                with self._device.capture(lane.stream) as graph:
                    self._enqueue(lane, size)
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
        if lane.batch != size:
            for name, (shape, _) in self._inputs.items():
                if not lane.context.set_input_shape(name, (size, *shape)):
                    raise EngineError(f"the engine does not take {size} of {name!r}: {'; '.join(self._said)}")
            lane.batch = size
        for name in self._inputs:
            self._device.upload(lane.device[name], lane.host[name][:size], lane.stream)
        if not lane.context.execute_async_v3(lane.stream):
            raise EngineError(f"TensorRT failed on a batch of {size}: {'; '.join(self._said)}")
        for name in self._outputs:
            self._device.download(lane.host[name][:size], lane.device[name], lane.stream)

    def _size_for(self, batch: int) -> int:
        return next((size for size in self._fixed if size >= batch), max(batch, self._smallest))

    def _runtime_config(self) -> Any:
        """RTX captures graphs by itself, after it has compiled kernels for a shape."""
        if not self._rtx:
            return None
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config

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


def _powers(smallest: int, largest: int) -> list[int]:
    sizes = [2**exponent for exponent in range(largest.bit_length()) if smallest <= 2**exponent < largest]
    return [*sizes, largest]


def _logger(trt: Any, said: Callable[[str], None]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT's log into ours; `said` gets the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                said(message.strip())
                log.warning("tensorrt_error", message=message)
            elif severity == trt.ILogger.WARNING:
                log.debug("tensorrt_warning", message=message)

    return Logger()
