"""The parts of the CUDA runtime that an engine needs, with typed errors."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from worker.scoring.engine import BatchFailed, EngineError, EngineLost


class OutOfDeviceMemory(BatchFailed):
    """The GPU is out of memory. Use smaller batches, or fewer engines on the GPU."""


class DeviceLost(EngineLost):
    """The GPU or its context is lost. Only a new process can use it again."""


class NoDevice(EngineError):
    """There is no GPU, driver or CUDA library. The message says which."""


_OUT_OF_MEMORY = {"cudaErrorMemoryAllocation"}
# After one of these, every later call of the process fails too (CUDA runtime API, error codes).
_LOST = {
    "cudaErrorAssert",
    "cudaErrorContained",
    "cudaErrorContextIsDestroyed",
    "cudaErrorECCUncorrectable",
    "cudaErrorExternalDevice",
    "cudaErrorHardwareStackError",
    "cudaErrorIllegalAddress",
    "cudaErrorIllegalInstruction",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorMisalignedAddress",
    "cudaErrorMpsClientTerminated",
    "cudaErrorMpsRpcFailure",
    "cudaErrorNvlinkUncorrectable",
    "cudaErrorTensorMemoryLeak",
}


def device_lost(said: object) -> DeviceLost:
    """`said`: by what it showed."""
    return DeviceLost(f"this process lost the GPU ({said}); restart it")


class CudaDevice:
    """One GPU. Pointers, streams and graphs are the runtime's handles; the caller frees them."""

    def __init__(self, index: int = 0, runtime: Any = None) -> None:
        """`runtime`: the module cuda.bindings.runtime or a compatible one. Raises NoDevice, OutOfDeviceMemory if other
        processes use all memory, and DeviceLost.
        """
        if runtime is None:
            try:
                runtime = import_module("cuda.bindings.runtime")
            except ImportError as error:
                raise NoDevice(f"the CUDA bindings do not load: {error}; pip install cuda-bindings") from error
        self._cuda = runtime
        self._index = index
        try:
            self.activate()
        except (OutOfDeviceMemory, DeviceLost):
            raise
        except EngineError as error:  # no driver, an old one, a GPU that another process has to itself, and more
            raise NoDevice(f"no GPU can be used here: {error}; check nvidia-smi and the driver's version") from error

    def activate(self) -> None:
        """Selects this GPU for the calling thread. Call it first on each thread."""
        self._call("cudaSetDevice", self._index)

    @property
    def compute_capability(self) -> str:
        attributes = self._cuda.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, self._index)
        minor = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, self._index)
        return f"{major}.{minor}"

    def allocate(self, size: int) -> int:
        """Bytes on the GPU. Raises OutOfDeviceMemory."""
        return int(self._call("cudaMalloc", size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", pointer)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in pinned host memory. Free it with `unpin`."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        pointer = int(self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        array: NDArray[Any] = np.ctypeslib.as_array(memory).view(kind).reshape(shape)
        return array

    def unpin(self, array: NDArray[Any]) -> None:
        self._call("cudaFreeHost", array.ctypes.data)

    def stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def upload(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        """Starts copying a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", pointer, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        """Starts copying from the GPU into a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, pointer, array.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """Waits for all work on the stream, and raises its errors."""
        self._call("cudaStreamSynchronize", stream)

    @contextmanager
    def capture(self, stream: int) -> Iterator["CapturedGraph"]:
        """Records the work that is started on the stream inside the block, instead of running it. Thread-local, so that
        other threads may allocate meanwhile. The graph is ready when the block has ended.
        """
        graph = CapturedGraph()
        self._call("cudaStreamBeginCapture", stream, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            yield graph
        except BaseException:
            # The stream must leave capture mode in any case. A capture without an error gives a graph.
            _, unfinished = self._cuda.cudaStreamEndCapture(stream)
            if unfinished is not None:
                self._cuda.cudaGraphDestroy(unfinished)
            raise
        recorded = self._call("cudaStreamEndCapture", stream)
        try:
            graph.handle = self._call("cudaGraphInstantiate", recorded, 0)
        finally:
            self._call("cudaGraphDestroy", recorded)

    def launch(self, graph: "CapturedGraph", stream: int) -> None:
        self._call("cudaGraphLaunch", graph.handle, stream)

    def destroy_graph(self, graph: "CapturedGraph") -> None:
        self._call("cudaGraphExecDestroy", graph.handle)

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, function)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise _typed(error.name, self._explain(error), function)
        return values[0] if values else None

    def _explain(self, error: Any) -> str:
        _, text = self._cuda.cudaGetErrorString(error)
        return text.decode() if isinstance(text, bytes) else str(text)


@dataclass(slots=True)
class CapturedGraph:
    """A CUDA graph: work that is recorded once and launched as one."""

    handle: Any = None


def _typed(name: str, text: str, function: str) -> EngineError:
    said = f"{function}: {name}: {text}"
    if name in _OUT_OF_MEMORY and function == "cudaHostAlloc":
        return OutOfDeviceMemory(f"pinned host memory cannot be allocated ({said}); use a smaller batch")
    if name in _OUT_OF_MEMORY:
        return OutOfDeviceMemory(
            f"the GPU is out of memory ({said}); use a smaller batch, or fewer engines on this GPU"
        )
    if name in _LOST:
        return device_lost(said)
    return BatchFailed(f"CUDA failed ({said})")
