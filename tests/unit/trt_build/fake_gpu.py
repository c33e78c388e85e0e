# ruff: noqa: N802, N815  # the names are CUDA's
"""A CUDA runtime and a TensorRT in host memory: streams do what they are told when they are waited for and not before,
captures keep it for later.

They hold callers to the real ones' rules: each thread says first which GPU it means, copies beside the host's work from
pinned memory only and within what was allocated, no capture without a run of the same shape before, nothing allocated
or freed by the thread that captures, one context for each graph, contexts only with the scratch memory they need and
none of it on two streams, nothing freed that a stream has yet to use, nothing left allocated, and an error stays once
the device is lost.
"""

import ctypes
import enum
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class Error(enum.Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorDevicesUnavailable = 46
    cudaErrorIllegalAddress = 700
    cudaErrorInvalidValue = 1
    cudaErrorUnknown = 999
    cudaErrorStreamCaptureInvalidated = 901


class FakeCuda:
    """Stands in for cuda.bindings.runtime."""

    cudaError_t = Error
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)

    def __init__(self, capability: tuple[int, int] = (8, 9), memory: int = 1 << 30, host_memory: int = 1 << 30) -> None:
        self._capability = capability
        self._memory = memory
        self._host_memory = host_memory
        self._blocks: dict[int, Any] = {}
        self._pinned: set[int] = set()
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self._captures: dict[int, list[Callable[[], None]]] = {}
        self._capturing = threading.local()
        self._meant = threading.local()
        self.failure = Error.cudaSuccess
        self.capturable = True
        self.out_of_memory = False
        self.refused: Callable[[FakeCuda], None] | None = None
        """Called by a context that then says that it failed."""
        self.launches = 0
        self.contexts = 0
        self.misused: list[str] = []
        """What was done wrong where an assertion would not be heard."""
        self.configs: list[Any] = []
        self.scratch: dict[int, int] = {}
        """Address of scratch memory → the stream that it is used on."""
        self.runs: dict[int, int] = {}
        """How often contexts were given a batch of each size."""
        self.log: Callable[[str], None] = lambda _message: None
        """Tells an error to the logger of the runtime made last."""

    @property
    def leaked(self) -> int:
        return len(self._blocks) + len(self._waiting) + self.contexts

    def allocated(self, address: int, size: int) -> bool:
        block = self._blocks.get(address)
        return block is not None and len(block) >= size

    @property
    def busy(self) -> bool:
        return any(self._waiting.values())

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        self._captures.get(stream, self._waiting[stream]).append(work)

    def capturing(self, stream: int) -> bool:
        return stream in self._captures

    def _may_allocate(self) -> None:
        assert not getattr(self._capturing, "now", False), "a thread that captures must neither allocate nor free"

    def _knows_the_device(self) -> None:
        assert getattr(self._meant, "device", False), "this thread never said which GPU it means"

    def cudaSetDevice(self, _index: int) -> tuple[Error]:
        self._meant.device = self.failure is Error.cudaSuccess
        return (self.failure,)

    def cudaDeviceGetAttribute(self, attribute: int, _device: int) -> tuple[Error, int]:
        return Error.cudaSuccess, self._capability[attribute - 75]

    def cudaGetErrorString(self, error: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, error.name.encode()

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        self._knows_the_device()
        self._may_allocate()
        if size > self._memory:
            return Error.cudaErrorMemoryAllocation, None
        self._memory -= size
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self._blocks[address] = block
        return Error.cudaSuccess, address

    def cudaHostAlloc(self, size: int, _flags: int) -> tuple[Error, int | None]:
        self._knows_the_device()
        self._may_allocate()
        if size > self._host_memory:
            return Error.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self._blocks[address] = block
        self._pinned.add(address)
        return Error.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Error]:
        return self._free(address)

    def cudaFreeHost(self, address: int) -> tuple[Error]:
        return self._free(address)

    def _free(self, address: int) -> tuple[Error]:
        self._may_allocate()
        assert not self.busy, "memory was freed that a stream has yet to use"
        return self._give_back(address)

    def _give_back(self, address: int) -> tuple[Error]:
        return (Error.cudaSuccess if self._blocks.pop(address, None) is not None else Error.cudaErrorInvalidValue,)

    def cudaStreamCreateWithFlags(self, _flags: int) -> tuple[Error, int]:
        self._knows_the_device()
        stream = len(self._waiting) + 1
        self._waiting[stream] = []
        return Error.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:
        del self._waiting[stream]
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        assert not self.capturing(stream), "a stream must not be waited for while it is captured"
        while self._waiting[stream]:
            self._waiting[stream].pop(0)()
        return (self.failure,)

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: int, stream: int) -> tuple[Error]:
        host = source if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else to
        self._knows_the_device()
        assert host in self._pinned, "a copy of pageable memory waits, and breaks a capture"
        assert self.allocated(to, count), "a copy to what lies behind an allocation"
        assert self.allocated(source, count), "a copy of what lies behind an allocation"
        self.enqueue(stream, lambda: ctypes.memmove(to, source, count) and None)
        return (self.failure,)

    def cudaStreamBeginCapture(self, stream: int, _mode: int) -> tuple[Error]:
        self._captures[stream] = []
        self._capturing.now = True
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, int | None]:
        recorded = self._captures.pop(stream)
        self._capturing.now = False
        if not self.capturable:
            return Error.cudaErrorStreamCaptureInvalidated, None
        return Error.cudaSuccess, self._keep(recorded)

    def cudaGraphInstantiate(self, graph: int, _flags: int) -> tuple[Error, int]:
        return Error.cudaSuccess, self._keep(list(self._blocks[graph]))

    def cudaGraphDestroy(self, graph: int) -> tuple[Error]:
        return self._give_back(graph)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Error]:
        return self._give_back(graph)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:
        self._knows_the_device()
        self.launches += 1
        for work in self._blocks[graph]:
            self.enqueue(stream, work)
        return (self.failure,)

    def _keep(self, thing: Any) -> int:
        self._blocks[id(thing)] = thing
        return id(thing)


class StrictCuda:
    """The fake, and before each call the real bindings' function with the very same arguments: without a driver that
    does nothing, but refuses what does not fit its signature."""

    cudaError_t = Error

    def __init__(self, fake: FakeCuda, real: Any) -> None:
        self._fake = fake
        self._real = real
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real) or isinstance(real, type):
            return real

        def call(*arguments: Any) -> Any:
            self.called.add(name)
            if name != "cudaGetErrorString":
                real(*arguments)
            return getattr(self._fake, name)(*arguments)

        return call


SCRATCH = 4096
"""Bytes that a context of the fake wants."""


class FakeContext:
    """Gives every row the mean of its pixels, in all features, and every token its id."""

    def __init__(self, cuda: FakeCuda, tensors: dict[str, tuple[tuple[int, ...], str]]) -> None:
        self._cuda = cuda
        self._tensors = tensors
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._batch = 0
        self._ran: set[int] = set()
        cuda.contexts += 1

    def __del__(self) -> None:
        self._cuda.contexts -= 1
        if self._cuda.busy:
            self._cuda.misused.append("a context was destroyed before what it started had run")

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= SCRATCH
        self._scratch = memory

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._tensors

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self._ran, "a graph was made of this context: its shapes must stay"
        self._batch = shape[0]
        return self._tensors[name][0][1:] == shape[1:]

    def execute_async_v3(self, stream: int) -> bool:
        assert self._cuda.allocated(self._scratch, SCRATCH), "a context without device memory"
        used_on = self._cuda.scratch.setdefault(self._scratch, stream)
        assert used_on == stream, "two streams use the same scratch memory, and may do so at once"
        if self._cuda.refused:
            self._cuda.refused(self._cuda)
            return False
        batch = self._batch
        assert not self._cuda.capturing(stream) or batch in self._ran, "run a shape once before it is captured"
        self._ran.add(batch)
        self._cuda.runs[batch] = self._cuda.runs.get(batch, 0) + 1

        def work() -> None:
            if "tokens" in self._tensors:
                context, features = self._tensors["text"][0][1:]
                ids = np.frombuffer(_at(self._addresses["tokens"], 4 * batch * context), np.int32)
                text = np.repeat(ids.astype(np.float32), features)
                ctypes.memmove(self._addresses["text"], text.ctypes.data, text.nbytes)
                return
            shape = (batch, *self._tensors["whole"][0][1:])
            pixels = np.frombuffer(_at(self._addresses["whole"], int(np.prod(shape))), np.uint8).reshape(shape)
            for name in ("coarse", "fine"):
                size = self._tensors[name][0][1]
                rows = np.repeat(pixels.reshape(batch, -1).mean(axis=1, dtype=np.float32)[:, None], size, axis=1)
                ctypes.memmove(self._addresses[name], rows.ctypes.data, rows.nbytes)

        self._cuda.enqueue(stream, work)
        return True


def _at(address: int, size: int) -> Any:
    return (ctypes.c_uint8 * size).from_address(address)


class FakeTensorRt:
    """Stands in for the module tensorrt; loads an engine that is b"engine", and a text tower that is b"text"."""

    __version__ = "11.4.0"
    DataType = SimpleNamespace(UINT8="uint8", INT32="int32", FLOAT="float32")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="ours")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(
        self,
        cuda: FakeCuda,
        tensors: dict[str, tuple[tuple[int, ...], str]],
        text: dict[str, tuple[tuple[int, ...], str]] | None = None,
    ) -> None:
        self._cuda = cuda
        self._known = {b"engine": tensors, b"text": text, b"lean": tensors}

    def Runtime(self, logger: Any) -> Any:
        def deserialize(data: bytes) -> Any:
            tensors = self._known.get(data)
            if tensors is None:
                logger.log(self.ILogger.ERROR, "Magic tag does not match")
                return None
            if self._cuda.out_of_memory:
                logger.log(self.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 703 bytes.)")
                return None
            if data == b"lean" and not runtime.engine_host_code_allowed:
                logger.log(self.ILogger.ERROR, "host code is not allowed")
                return None
            return self._engine(tensors)

        self._cuda.log = lambda message: logger.log(self.ILogger.ERROR, message)
        runtime = SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False)
        return runtime

    def _engine(self, tensors: dict[str, tuple[tuple[int, ...], str]]) -> Any:
        names = list(tensors)

        def context(given: Any) -> FakeContext:
            strategy = given if isinstance(given, str) else given.strategy
            assert strategy == "ours", "a context would allocate by itself"
            assert isinstance(given, str) or given.cache() is not None, "contexts use a cache that is gone"
            self._cuda.configs.append(given)
            return FakeContext(self._cuda, tensors)

        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=names.__getitem__,
            get_tensor_shape=lambda name: tensors[name][0],
            get_tensor_dtype=lambda name: tensors[name][1],
            create_execution_context=context,
            create_runtime_config=FakeConfig,
            device_memory_size_v2=SCRATCH,
        )


class FakeConfig(SimpleNamespace):
    """Stands in for IRuntimeConfig."""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> "RuntimeCache":
        return RuntimeCache()

    def set_runtime_cache(self, cache: "RuntimeCache") -> bool:
        self.cache = weakref.ref(cache)
        return True


class RuntimeCache:
    """Stands in for IRuntimeCache, which its config does not keep alive."""
