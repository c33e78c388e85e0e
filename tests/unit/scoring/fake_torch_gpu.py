"""torch's GPU in host memory: what is copied beside the host's work arrives when its stream is waited for, not before.

It holds an engine to the rules of torch.cuda: computing waits for the event of the copy it reads, memory that one
stream made and another reads is recorded for that other, results are read after their event, and host memory that the
GPU reads or writes by itself is pinned.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pytest
import torch

from worker.scoring import torch_engine


class FakeStream:
    """Stands in for torch.cuda.Stream."""

    def __init__(self, *_device: object) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self.lost: str | None = None

    def enqueue(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def run(self) -> None:
        with self._lock:
            while self._work:
                self._work.popleft()()

    def wait_event(self, event: "FakeEvent") -> None:
        event.run()

    def synchronize(self) -> None:
        if self.lost is not None:
            raise RuntimeError(self.lost)
        self.run()


class FakeEvent:
    """Stands in for torch.cuda.Event."""

    def __init__(self) -> None:
        self._stream: FakeStream | None = None

    def record(self) -> None:
        self._stream = gpu().current_stream()

    def run(self) -> None:
        assert self._stream is not None, "an event that was never recorded holds nobody back"
        self._stream.run()

    synchronize = run


class Pinned:
    """Host memory that the GPU reaches by itself; copies of it lag."""

    def __init__(self, memory: torch.Tensor) -> None:
        self._memory = memory

    def numpy(self) -> np.ndarray:
        found: np.ndarray = self._memory.numpy()
        return found

    def to(self, _device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        assert non_blocking, "the host would wait for the copy"
        there = torch.full_like(self._memory, 77)
        gpu().current_stream().enqueue(lambda: _copy(there, self._memory))
        gpu().uploaded.append((there, gpu().current_stream()))
        return there

    def copy_(self, values: torch.Tensor, *, non_blocking: bool) -> Self:
        assert non_blocking, "the host would wait for the copy"
        self._memory.fill_(77)
        gpu().current_stream().enqueue(lambda: _copy(self._memory, values))
        return self


def _copy(to: torch.Tensor, values: torch.Tensor) -> None:
    with torch.inference_mode():
        to.copy_(values)


class FakeTorchGpu:
    """What of torch.cuda the engine uses."""

    def __init__(self) -> None:
        self._default = FakeStream()
        self._current = threading.local()
        self.uploaded: list[tuple[torch.Tensor, FakeStream]] = []
        self.recorded: list[tuple[torch.Tensor, FakeStream]] = []
        self.emptied = 0

    def current_stream(self, *_device: object) -> FakeStream:
        found: FakeStream = getattr(self._current, "stream", self._default)
        return found

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = self._default

    def record_stream(self, tensor: torch.Tensor, stream: FakeStream) -> None:
        self.recorded.append((tensor, stream))

    def empty_cache(self) -> None:
        self.emptied += 1

    @property
    def unrecorded(self) -> int:
        """How many uploads the computing stream was not recorded for: their memory could be used again too early."""
        known = {id(tensor) for tensor, stream in self.recorded if stream is self._default}
        return sum(stream is not self._default and id(tensor) not in known for tensor, stream in self.uploaded)


_here: list[FakeTorchGpu] = []


def gpu() -> FakeTorchGpu:
    return _here[-1]


def put_in(monkeypatch: pytest.MonkeyPatch) -> FakeTorchGpu:
    """An engine for `cpu` takes itself to be on this GPU from now on."""
    fake = FakeTorchGpu()
    monkeypatch.setattr(f"{__name__}._here", [fake])
    empty = torch.empty

    def empty_or_pinned(*arguments: Any, pin_memory: bool = False, **options: Any) -> Any:
        made = empty(*arguments, **options)
        return Pinned(made) if pin_memory else made

    monkeypatch.setattr(torch, "empty", empty_or_pinned)
    for name in ("stream", "current_stream", "empty_cache"):
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: fake.record_stream(tensor, stream))
    kinds: dict[str, Any] = {"Stream": FakeStream, "Event": FakeEvent}
    monkeypatch.setattr(torch_engine, "_cuda", lambda kind, *arguments: kinds[kind](*arguments))
    monkeypatch.setattr(torch_engine.TorchEngine, "_on_gpu", True)
    return fake
