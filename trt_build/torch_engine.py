"""The torch engine: the reference that others are compared with, and the GPU engine of hosts without TensorRT."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from trt_build.graph import prepare_graph
from trt_build.torch_graph import TorchGraph, read_graph
from worker.scoring.cuda_device import DeviceLost, NoDevice, OutOfDeviceMemory
from worker.scoring.engine import PROMPT, EngineError, Features, Prompts, Views, check_batch
from worker.scoring.model import Model
from worker.scoring.prompts import PromptScorer
from worker.scoring.tensors import Array
from worker.scoring.tokenizer import TokenIds

log = structlog.get_logger(__name__)

MAX_BATCH = 64
FIXED_BATCHES = (1, 4, 16, MAX_BATCH)
"""What a compiled engine is compiled for; a batch of another size is filled up to the next of them."""


@dataclass(frozen=True, slots=True)
class _Started:
    """A batch that the device is working on: its features once `wait` has returned."""

    features: Sequence[Tensor]
    wait: Callable[[], object]


class TorchEngine:
    """Runs a model's towers with torch, on the CPU or on a GPU; safe to call from several threads.

    In `bf16` it runs the graph that `sluice build` gives to TensorRT in that precision: products in bfloat16, the
    normalisation of pixels, layer norms and statistics in float32. Pixels go up as uint8 from pinned memory, on a
    stream of their own, while the batch before computes.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        compiled: bool = False,
        fixed_batches: Sequence[int] = FIXED_BATCHES,
    ) -> None:
        """`compiled`: by torch.compile, for each of `fixed_batches`, which takes a minute or more the first time; torch
        keeps the kernels for the next.

        Raises BuildError for a graph with an operator that is not known here, NoDevice when torch sees no GPU, and
        OutOfDeviceMemory or another EngineError when it fails.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise NoDevice(f"torch {torch.__version__} sees no GPU here; install a build of torch for this driver")
        self._manifest = model.manifest
        self._device = torch.device(device)
        graph = model.graph if precision == "fp32" else prepare_graph(model.graph, precision)
        self._graph = read_graph(graph).to(self._device).eval()
        self._prompts = self._open_prompts(model, precision)
        self._sizes = sorted(fixed_batches) if compiled else []
        self._copying: Any = _cuda("Stream", self._device) if self._on_gpu else None
        # Compiled code and its warm-up belong to one thread; what it starts on a GPU it does not wait for.
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._programs: dict[int, Callable[..., Sequence[Tensor]]] = {}
        self._lost: DeviceLost | None = None
        try:
            for size in self._sizes:
                blank = {name: np.zeros((size, *view.shape), np.uint8) for name, view in model.manifest.views.items()}
                self._programs[size] = self._guarded(self._launcher.submit(self._compile, size).result)
                self.infer(blank)
        except BaseException:
            self.close()
            raise
        log.info(
            "engine_ready",
            model=model.manifest.name,
            digest=model.manifest.digest,
            engine=f"torch-{self._device.type}-{precision}",
            compiled=compiled,
        )

    @property
    def max_batch(self) -> int:
        return self._sizes[-1] if self._sizes else MAX_BATCH

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises EngineError: DeviceLost when only a new process can go on."""
        if self._lost is not None:
            raise DeviceLost(str(self._lost))
        batch = check_batch(views, self._manifest.views, self.max_batch)
        rows = self._guarded(lambda: self._run(views, batch))
        features = dict(zip(self._graph.outputs, rows, strict=True))
        for name, values in features.items():
            if not np.isfinite(values).all():
                raise EngineError(f"tower {name!r} gave values that are not finite")
        found = {tower.name: features[tower.name] for tower in self._manifest.towers}
        if prompts is not None and self._prompts is not None:
            found[PROMPT] = self._prompts.score(found, prompts)
        return found

    def close(self) -> None:
        self._launcher.shutdown()
        self._programs = {}

    def _open_prompts(self, model: Model, precision: Literal["fp32", "bf16"]) -> PromptScorer | None:
        """What judges prompts. The text tower is not compiled: its answers are kept, and few prompts are new."""
        prompt = model.judging_prompts
        if prompt is None:
            return None
        graph = prompt.text if precision == "fp32" else prepare_graph(prompt.text, precision)
        text = read_graph(graph).to(self._device).eval()
        return prompt.scorer(lambda ids: self._run_text(text, ids), MAX_BATCH)

    def _run_text(self, text: TorchGraph, ids: TokenIds) -> Array:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids).to(self._device)
            features: Array = self._guarded(lambda: text(tokens)[0].float().cpu().numpy())
            return features

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def _run(self, views: Views, batch: int) -> list[NDArray[np.float32]]:
        size = next((size for size in self._sizes if size >= batch), batch)
        with torch.inference_mode():
            pixels, arrived = self._upload([self._filled(views[name], size) for name in self._graph.inputs])
        started: Future[_Started] = self._launcher.submit(self._launch, size, pixels, arrived)
        done = started.result()
        done.wait()
        return [np.array(values.numpy()[:batch]) for values in done.features]

    def _filled(self, rows: NDArray[np.uint8], size: int) -> Tensor:
        """The rows, and black images up to `size`, in memory that a GPU can read by itself."""
        if not self._on_gpu and len(rows) == size:
            return torch.from_numpy(rows) if rows.flags.writeable else torch.from_numpy(rows.copy())
        filled = torch.empty((size, *rows.shape[1:]), dtype=torch.uint8, pin_memory=self._on_gpu)
        array = filled.numpy()
        array[: len(rows)] = rows
        array[len(rows) :] = 0
        return filled

    def _upload(self, pixels: list[Tensor]) -> tuple[list[Tensor], Any]:
        """The pixels on the device, and when they have arrived there."""
        if self._copying is None:
            return pixels, None
        with torch.cuda.stream(self._copying):
            uploaded = [rows.to(self._device, non_blocking=True) for rows in pixels]
            arrived = _cuda("Event")
            arrived.record()
        return uploaded, arrived

    def _launch(self, size: int, pixels: Sequence[Tensor], arrived: Any) -> _Started:
        with torch.inference_mode():
            if arrived is None:
                return _Started(
                    [values.float() for values in self._programs.get(size, self._graph)(*pixels)], lambda: None
                )
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(arrived)
            for rows in pixels:
                rows.record_stream(stream)  # their memory is the other stream's, and must not be used again too early
            features = [
                torch.empty(values.shape, dtype=torch.float32, pin_memory=True).copy_(values, non_blocking=True)
                for values in self._programs.get(size, self._graph)(*pixels)
            ]
            done = _cuda("Event")
            done.record()
            return _Started(features, done.synchronize)

    def _compile(self, size: int) -> Callable[..., Sequence[Tensor]]:
        blank = tuple(
            torch.zeros((size, *self._manifest.views[name].shape), dtype=torch.uint8, device=self._device)
            for name in self._graph.inputs
        )
        with torch.inference_mode():
            graph: TorchGraph = self._graph.fixed(*blank)
            # Exported first: each size is then code of its own, and torch limits how often one code is compiled anew.
            program = torch.export.export(graph, blank, strict=False).module()
        compiled: Callable[..., Sequence[Tensor]] = torch.compile(program, dynamic=False)
        return compiled

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """The work's result; what torch raises becomes an EngineError that says whose fault it is."""
        try:
            return work()
        except EngineError:
            raise
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(
                f"the GPU is out of memory ({error}); use a smaller batch, or fewer engines on this GPU"
            ) from error
        except RuntimeError as error:
            # After an error of CUDA itself every later call of the process fails too.
            if self._on_gpu and "CUDA error" in str(error):
                self._lost = DeviceLost(f"the GPU is lost to this process ({error}); start it again")
                raise self._lost from error
            raise EngineError(f"torch failed on a batch: {error}") from error


def _cuda(kind: Literal["Event", "Stream"], *arguments: Any) -> Any:
    """An object of torch.cuda whose constructor has no types."""
    return getattr(torch.cuda, kind)(*arguments)
