"""The torch engine: the reference for the parity gate, and the GPU engine of hosts without TensorRT."""

import gc
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.scoring.cuda_device import DeviceLost, NoDevice, OutOfDeviceMemory, device_lost
from worker.scoring.engine import PROMPT, BatchFailed, EngineError, Features, Prompts, Views, check_batch
from worker.scoring.engine_record import BatchProfile, EngineRecord
from worker.scoring.graph_precision import prepare_graphs
from worker.scoring.model import Model
from worker.scoring.onnx_file import GraphError
from worker.scoring.precision import TorchPrecision
from worker.scoring.prompts import PromptScorer
from worker.scoring.tensors import Array
from worker.scoring.token_ids import TokenIds
from worker.scoring.torch_graph import TorchGraph, read_graph

log = structlog.get_logger(__name__)

MAX_BATCH = 64
STEP = 4
FIXED_BATCHES = BatchProfile(largest=MAX_BATCH).steps(STEP)
"""Batch sizes of a compiled engine. A batch of another size is padded to the next one."""


NO_GPU = f"torch {torch.__version__} sees no GPU here; install a build of torch for this driver"

_NO_MEMORY = re.compile(r"out of memory|_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED")


@dataclass(frozen=True, slots=True)
class _Started:
    """A batch in progress on the device. `wait` returns its features."""

    features: Sequence[Tensor]
    wait: Callable[[], object]


class TorchEngine:
    """Runs a model's towers with torch, on the CPU or a GPU. Thread-safe.

    In `bf16` it runs the same graph that `sluice build` gives to TensorRT: products in bfloat16; the normalisation of
    pixels, layer norms and statistics in float32. Pixels are uploaded as uint8 from pinned memory on a separate stream,
    while the previous batch computes.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        precision: TorchPrecision = "fp32",
        compiled: bool = False,
        fixed_batches: Sequence[int] = FIXED_BATCHES,
        prebuilt: Sequence[bytes] | None = None,
    ) -> None:
        """`compiled`: use torch.compile for each of `fixed_batches`, which takes a minute or more the first time; torch
        caches the kernels. `prebuilt`: graphs of towers and text tower in the right precision, made by `sluice build`,
        instead of the model's. Raises GraphError for an unsupported operator, NoDevice if torch sees no GPU, and
        OutOfDeviceMemory or another EngineError.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise NoDevice(NO_GPU)
        self._manifest = model.manifest
        self._device = torch.device(device)
        self._lost: DeviceLost | None = None
        self._copying: Any = None
        if self._on_gpu:
            self._copying = self._guarded(lambda: _cuda("Stream", self._device))
        towers, *text = prebuilt or _own_graphs(model, precision)
        self._graph = self._load(towers)
        self._prompts = self._open_prompts(model, text)
        self._sizes = sorted(fixed_batches) if compiled else []
        # Compiled code runs on one thread, which does not wait for the GPU.
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._programs: dict[int, Callable[..., Sequence[Tensor]]] = {}
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

    @classmethod
    def of_record(cls, model: Model, record: EngineRecord, files: Sequence[bytes]) -> Self:
        """The compiled engine from a checked record of the repository and its files."""
        return cls(
            model,
            device="cuda" if record.target.on_gpu else "cpu",
            precision="bf16" if record.target.precision == "bf16" else "fp32",
            compiled=True,
            fixed_batches=record.profile.steps(STEP),
            prebuilt=files,
        )

    @staticmethod
    def version() -> str:
        """Torch's, without what it was built for: kernels are made here, for this GPU."""
        return torch.__version__.partition("+")[0]

    @staticmethod
    def compute_capability() -> str:
        """The compute capability of the GPU that torch sees. Raises NoDevice."""
        if not torch.cuda.is_available():
            raise NoDevice(NO_GPU)
        major, minor = torch.cuda.get_device_capability()
        return f"{major}.{minor}"

    @property
    def max_batch(self) -> int:
        return self._sizes[-1] if self._sizes else MAX_BATCH

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises BatchFailed, or DeviceLost if only a new process helps."""
        if self._lost is not None:
            raise DeviceLost(str(self._lost))
        batch = check_batch(views, self._manifest.views, self.max_batch)
        rows = self._guarded(lambda: self._run(views, batch))
        features = dict(zip(self._graph.outputs, rows, strict=True))
        for name, values in features.items():
            if not np.isfinite(values).all():
                raise BatchFailed(f"tower {name!r} gave values that are not finite")
        found = {tower.name: features[tower.name] for tower in self._manifest.towers}
        if prompts is not None and self._prompts is not None:
            found[PROMPT] = self._prompts.score(found, prompts)
        return found

    def close(self) -> None:
        self._launcher.shutdown()
        self._programs, self._prompts = {}, None
        self._graph.to("meta")  # whoever still holds it holds no weights
        if self._sizes:
            gc.collect()  # compiled programs refer to themselves
        if self._on_gpu and not self._is_lost():
            torch.cuda.empty_cache()  # for engines beside this one

    def _load(self, graph: bytes) -> TorchGraph:
        module = read_graph(graph).eval()
        placed: TorchGraph = self._guarded(lambda: module.to(self._device))
        return placed

    def _open_prompts(self, model: Model, graphs: Sequence[bytes]) -> PromptScorer | None:
        """Scores prompts. The text tower is not compiled, because its results are cached and few prompts are new."""
        prompt = model.judging_prompts
        if prompt is None:
            return None
        if not graphs:
            raise EngineError("the engine has no text tower, but the model needs one; build it again with --rebuild")
        text = self._load(graphs[0])
        return prompt.scorer(lambda ids: self._run_text(text, ids), MAX_BATCH)

    def _run_text(self, text: TorchGraph, ids: TokenIds) -> Array:
        def run() -> Array:
            with torch.inference_mode():
                features: Array = text(torch.from_numpy(ids).to(self._device))[0].float().cpu().numpy()
                return features

        found: Array = self._guarded(run)
        return found

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
        """The rows, padded with black images up to `size`, in pinned memory."""
        if not self._on_gpu and len(rows) == size:
            return torch.from_numpy(rows) if rows.flags.writeable else torch.from_numpy(rows.copy())
        filled = torch.empty((size, *rows.shape[1:]), dtype=torch.uint8, pin_memory=self._on_gpu)
        array = filled.numpy()
        array[: len(rows)] = rows
        array[len(rows) :] = 0
        return filled

    def _upload(self, pixels: list[Tensor]) -> tuple[list[Tensor], Any]:
        """The pixels on the device, and the event of their arrival."""
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
            # Exported first, so that each size is separate code: torch limits how often the same code is recompiled.
            program = torch.export.export(graph, blank, strict=False).module()
        compiled: Callable[..., Sequence[Tensor]] = torch.compile(program, dynamic=False)
        return compiled

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """The result of `work`. Converts errors of torch and its compilers to EngineErrors."""
        try:
            return work()
        except (GraphError, EngineError):
            raise
        except Exception as error:
            # The libraries below torch report missing memory only in the message, and it is transient.
            if isinstance(error, torch.OutOfMemoryError) or (self._on_gpu and _NO_MEMORY.search(str(error))):
                raise OutOfDeviceMemory(
                    f"the GPU is out of memory ({error}); use a smaller batch, or fewer engines on this GPU"
                ) from error
            if self._is_lost():
                self._lost = device_lost(error)
                raise self._lost from error
            raise BatchFailed(f"torch failed: {error}") from error

    def _is_lost(self) -> bool:
        """Asks the GPU, because torch, its compilers and CUDA's libraries have different messages: after a permanent
        error, waiting for any stream fails too.
        """
        try:
            if self._copying is not None:
                self._copying.synchronize()
        except RuntimeError:
            return True
        return False


def _own_graphs(model: Model, precision: TorchPrecision) -> list[bytes]:
    """The model's own graphs in float32."""
    if precision != "fp32":
        return prepare_graphs(model, precision)
    return [model.graph, *([] if model.judging_prompts is None else [model.judging_prompts.text])]


def _cuda(kind: Literal["Event", "Stream"], *arguments: Any) -> Any:
    """An object of torch.cuda whose constructor has no types."""
    return getattr(torch.cuda, kind)(*arguments)
