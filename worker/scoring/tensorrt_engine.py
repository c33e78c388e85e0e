"""The GPU engine: runs the towers, and the text tower if the model has one, with TensorRT or TensorRT for RTX."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import structlog

from worker.scoring.cuda_device import CudaDevice
from worker.scoring.engine import PROMPT, Features, Prompts, Views, check_batch
from worker.scoring.engine_record import EngineRecord, TensorRtBackend
from worker.scoring.manifest import ModelManifest
from worker.scoring.model import PromptParts
from worker.scoring.tensorrt_binding import load_binding
from worker.scoring.tensorrt_graph import LANES, BadEngine, TensorRtGraph

log = structlog.get_logger(__name__)

__all__ = ["BadEngine", "CompiledText", "TensorRtEngine"]


@dataclass(frozen=True, slots=True)
class CompiledText:
    """The text tower (the engine's second file) and the parts that score prompts."""

    engine: bytes
    parts: PromptParts


class TensorRtEngine:
    """Runs a model's towers on a GPU. A batch is uploaded as uint8 and normalised there. Thread-safe."""

    def __init__(
        self,
        manifest: ModelManifest,
        record: EngineRecord,
        engine: bytes,
        *,
        text: CompiledText | None = None,
        device: CudaDevice | None = None,
        binding: Any = None,
        lanes: int = LANES,
    ) -> None:
        """`text`: for a model that uses prompts. Raises EngineMismatch for an engine of another model, TensorRT version
        or GPU, BadEngine if it does not load, BindingMissing without the backend, NoDevice, OutOfDeviceMemory and
        DeviceLost.
        """
        trt = binding if binding is not None else load_binding(cast(TensorRtBackend, record.target.backend))
        record.check(model=manifest.digest, backend_version=str(trt.__version__))
        device = device if device is not None else CudaDevice()
        record.check(compute_capability=device.compute_capability)
        if manifest.judges_prompts and text is None:
            raise BadEngine(f"{record.target.name} has no text tower, but the model needs one; use --rebuild")
        self._manifest = manifest
        self._largest = record.profile.largest
        self._prompts = None
        with ExitStack() as made:
            self._towers = TensorRtGraph(
                record,
                engine,
                {name: (view.shape, np.uint8) for name, view in manifest.views.items()},
                {tower.name: ((tower.features,), np.float32) for tower in manifest.towers},
                device=device,
                binding=trt,
                lanes=lanes,
            )
            made.callback(self._towers.close)
            if text is not None:
                spec = text.parts.spec
                graph = TensorRtGraph(
                    record,
                    text.engine,
                    {"tokens": ((spec.context,), np.int32)},
                    {"text": ((spec.context, spec.features), np.float32)},
                    device=device,
                    binding=trt,
                    lanes=lanes,
                )
                made.callback(graph.close)
                self._prompts = text.parts.scorer(lambda ids: graph.run({"tokens": ids})["text"], self._largest)
            self._made = made.pop_all()
        log.info("engine_ready", model=manifest.name, digest=manifest.digest, engine=record.target.name, lanes=lanes)

    @property
    def max_batch(self) -> int:
        return self._largest

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises BatchFailed, or DeviceLost if only a new process helps."""
        check_batch(views, self._manifest.views, self._largest)
        features = self._towers.run(views)
        if prompts is not None and self._prompts is not None:
            features[PROMPT] = self._prompts.score(features, prompts)
        return features

    def close(self) -> None:
        self._made.close()
