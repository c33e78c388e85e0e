"""The CPU engine: runs the towers' ONNX graph, and the text tower if the model has one, with OpenVINO."""

import structlog

from worker.scoring.blob_cache import BlobCache
from worker.scoring.engine import PROMPT, BatchFailed, Features, Prompts, Views, check_batch
from worker.scoring.model import Model, PromptParts
from worker.scoring.openvino_graph import OpenVinoGraph
from worker.scoring.tensors import Array
from worker.scoring.token_ids import TokenIds

log = structlog.get_logger(__name__)

MAX_BATCH = 64

FLOAT32 = "f32"


class OpenVinoEngine:
    """Runs a model's towers on the CPU. Thread-safe; concurrent batches share the cores."""

    def __init__(
        self,
        model: Model,
        *,
        threads: int | None = None,
        precision: str | None = None,
        prebuilt: tuple[bytes, bytes] | None = None,
        cache: BlobCache | None = None,
    ) -> None:
        """`threads`: cores to use; None: all that this process may use. `precision`: `bf16` (on CPUs that support it)
        or `f32`; None: the precision that the model was measured in. `prebuilt`: the towers as OpenVINO graph and
        weights made by `sluice build`, instead of the model's. `cache`: the folder for compiled graphs. Raises
        ManifestError if the graph does not match the manifest.
        """
        manifest = self._manifest = model.manifest
        precision = precision or manifest.precision or FLOAT32
        self._towers = OpenVinoGraph(
            f"{manifest.name}: {manifest.graph.path}",
            prebuilt or model.graph,
            {name: ("u8", view.shape) for name, view in manifest.views.items()},
            {tower.name: ("f32", (tower.features,)) for tower in manifest.towers},
            threads=threads,
            precision=precision,
            cache=cache,
        )
        prompt = model.judging_prompts
        self._text = None if prompt is None else OpenVinoText(prompt, threads=threads, precision=precision, cache=cache)
        self._prompts = None
        if prompt is not None and self._text is not None:
            self._prompts = prompt.scorer(self._text.run, MAX_BATCH)
        log.info(
            "engine_ready",
            model=manifest.name,
            digest=manifest.digest,
            engine=f"openvino-{self._towers.precision}",
            streams=self._towers.streams,
        )
        if manifest.precision == precision == "bf16" != self._towers.precision:
            meaning = (
                "the model was trained and measured in bf16, so scores differ from those that thresholds were chosen "
                "for"
            )
            log.warning("precision_differs", model=manifest.name, meaning=meaning)

    @property
    def max_batch(self) -> int:
        return MAX_BATCH

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises BatchFailed if a view is missing or has a wrong shape or dtype, if the
        numbers of prompts and images differ, or if OpenVINO fails.
        """
        check_batch(views, self._manifest.views, MAX_BATCH)
        for name, pixels in views.items():
            if not pixels.flags.c_contiguous:
                raise BatchFailed(f"view {name!r} is not contiguous")
        features = self._towers.run(views)
        if prompts is not None and self._prompts is not None:
            features[PROMPT] = self._prompts.score(features, prompts)
        return features

    def close(self) -> None:
        self._towers.close()
        if self._text is not None:
            self._text.close()


class OpenVinoText:
    """Runs a model's text tower on the CPU. Thread-safe."""

    def __init__(
        self, prompt: PromptParts, *, threads: int | None = None, precision: str, cache: BlobCache | None = None
    ) -> None:
        """Parameters as for the engine. Raises ManifestError if the graph does not match the manifest."""
        spec = prompt.spec
        self._graph = OpenVinoGraph(
            spec.text.path,
            prompt.text,
            {"tokens": ("i32", (spec.context,))},
            {"text": ("f32", (spec.context, spec.features))},
            threads=threads,
            precision=precision,
            cache=cache,
        )

    def run(self, ids: TokenIds) -> Array:
        """Token ids, [texts, context] → their features, [texts, context, features]. Raises BatchFailed."""
        return self._graph.run({"tokens": ids})["text"]

    def close(self) -> None:
        self._graph.close()
