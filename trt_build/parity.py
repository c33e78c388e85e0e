"""The parity gate: compares the scores and routes of an engine with those of the reference."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schemas import FileReference, ImageEvent, Route, Scores
from trt_build.golden import GoldenImage
from worker.policy import Policy, PolicyError
from worker.rank_correlation import rank_correlation
from worker.scoring.engine import PROMPT, Engine, Features
from worker.scoring.engine_record import EngineRecord
from worker.scoring.manifest import ParityLimits, PromptScore, StrictModel
from worker.scoring.model import Model

BATCH = 8

Rows = NDArray[np.float32]


class TowerParity(StrictModel):
    """How far one tower's features are from the reference's, in units of their RMS; the lowest cosine of an image."""

    tower: str
    max_error: float
    mean_error: float
    min_cosine: float


class PromptParity(StrictModel):
    """How far one of the prompt head's scores is from the reference's, as the head gives it, unclipped."""

    score: PromptScore
    max_error: float
    mean_error: float
    spearman: float | None


class ImageParity(StrictModel):
    """One image's scores and destination under both; correspondence where the model judges it."""

    name: str
    reference: float
    engine: float
    reference_correspondence: float | None = None
    engine_correspondence: float | None = None
    reference_route: str
    engine_route: str

    @property
    def flipped(self) -> bool:
        return self.reference_route != self.engine_route

    @property
    def error(self) -> float:
        """The larger of the two scores' errors."""
        quality = abs(self.engine - self.reference)
        if self.reference_correspondence is None or self.engine_correspondence is None:
            return quality
        return max(quality, abs(self.engine_correspondence - self.reference_correspondence))


class Check(StrictModel):
    """One limit, and the measured value."""

    name: str
    found: float | None
    limit: float
    passed: bool


class ParityReport(StrictModel):
    """An engine beside the reference on the golden set: `sluice.parity/1`. `engine` is the engine's digest."""

    schema_: Literal["sluice.parity/1"] = Field(default="sluice.parity/1", alias="schema")
    passed: bool
    engine: str
    engine_name: str
    reference: str
    model: str
    policy: str
    made_at: datetime
    checks: tuple[Check, ...]
    towers: tuple[TowerParity, ...]
    prompts: tuple[PromptParity, ...] = ()
    images: Annotated[tuple[ImageParity, ...], Field(min_length=1)]
    reference_images_per_second: float
    engine_images_per_second: float

    def moved(self, limits: ParityLimits) -> list[ImageParity]:
        """The images that the policy would route elsewhere or whose score strays beyond the limit, the worst first."""
        moved = [image for image in self.images if image.flipped or image.error > limits.max_score_error]
        return sorted(moved, key=lambda image: image.error, reverse=True)


def compare(
    model: Model,
    reference: Engine,
    engine: Engine,
    record: EngineRecord,
    images: Iterable[GoldenImage],
    policy: Policy,
    *,
    reference_name: str,
    advance: Callable[[int], None] = lambda _images: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    clock: Callable[[], float] = time.perf_counter,
) -> ParityReport:
    """Runs both engines over the images and holds the difference to the manifest's limits, or to the defaults.

    Raises EngineError when one of them fails, and ValueError without images.
    """
    limits = model.manifest.parity or ParityLimits()
    judge = _Judge(model, policy)
    pairs: list[tuple[Features, Features]] = []
    results: list[ImageParity] = []
    seconds = [0.0, 0.0]
    for batch in _batches(images, min(BATCH, reference.max_batch, engine.max_batch)):
        views = {name: np.stack([image.views[name] for image in batch]) for name in model.manifest.views}
        started = clock()
        prompts = [image.prompt for image in batch] if model.manifest.judges_prompts else None
        expected = reference.infer(views, prompts)
        middle = clock()
        found = engine.infer(views, prompts)
        seconds[0] += middle - started
        seconds[1] += clock() - middle
        pairs.append((expected, found))
        for image, before, after in zip(batch, judge.judge(batch, expected), judge.judge(batch, found), strict=True):
            results.append(
                ImageParity(
                    name=image.name,
                    reference=before[0].quality,
                    engine=after[0].quality,
                    reference_correspondence=before[0].correspondence,
                    engine_correspondence=after[0].correspondence,
                    reference_route=before[1],
                    engine_route=after[1],
                )
            )
        advance(len(batch))
    if not results:
        raise ValueError("no images to compare on")
    towers = tuple(
        _tower(tower.name, *(np.concatenate([pair[side][tower.name] for pair in pairs]) for side in (0, 1)))
        for tower in model.manifest.towers
    )
    prompted = tuple(
        _prompt(score, *(np.concatenate([pair[side][PROMPT][:, index] for pair in pairs]) for side in (0, 1)))
        for index, score in enumerate(model.manifest.prompt.scores if model.manifest.prompt is not None else ())
    )
    checks = (*_checks(limits, towers, results), *_prompt_checks(limits, prompted))
    return ParityReport(
        passed=all(check.passed for check in checks),
        engine=record.digest,
        engine_name=record.target.name,
        reference=reference_name,
        model=model.manifest.digest,
        policy=policy.digest,
        made_at=now(),
        checks=checks,
        towers=towers,
        prompts=prompted,
        images=tuple(results),
        reference_images_per_second=round(len(results) / max(seconds[0], 1e-9), 2),
        engine_images_per_second=round(len(results) / max(seconds[1], 1e-9), 2),
    )


class _Judge:
    """Scores and destinations of features."""

    def __init__(self, model: Model, policy: Policy) -> None:
        self._model = model
        self._policy = policy

    def judge(self, images: Sequence[GoldenImage], features: Features) -> list[tuple[Scores, str]]:
        scores = self._model.heads.score(features)
        return [(each, self._route(image, each)) for image, each in zip(images, scores, strict=True)]

    def _route(self, image: GoldenImage, scores: Scores) -> str:
        """Where the image goes, and where it goes otherwise for tenants with thresholds of their own."""
        event = ImageEvent(
            id=hashlib.sha256(image.name.encode()).hexdigest(),
            occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
            image=FileReference(path=image.name),
            prompt=image.prompt,
        )
        common = self._route_of(event, scores)
        others = {
            tenant: self._route_of(event.model_copy(update={"tenant": tenant}), scores)
            for tenant in self._policy.tenants
        }
        return "; ".join((common, *(f"{tenant}: {route}" for tenant, route in others.items() if route != common)))

    def _route_of(self, event: ImageEvent, scores: Scores) -> str:
        try:
            return _words(self._policy.route(event, scores))
        except PolicyError as error:
            return f"undecided: rule {error}"


def _words(route: Route) -> str:
    return route.action if route.queue is None else f"{route.action} {route.queue}"


def _tower(name: str, expected: Rows, found: Rows) -> TowerParity:
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))) or 1.0
    errors = np.abs(found.astype(np.float64) - expected) / scale
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = np.einsum("if,if->i", expected, found) / np.maximum(lengths, 1e-12)
    return TowerParity(
        tower=name, max_error=float(errors.max()), mean_error=float(errors.mean()), min_cosine=float(cosines.min())
    )


def _checks(limits: ParityLimits, towers: Sequence[TowerParity], images: Sequence[ImageParity]) -> Iterator[Check]:
    errors = [image.error for image in images]
    spearman = rank_correlation([image.reference for image in images], [image.engine for image in images])
    for name, found, limit in (
        ("largest feature error", max(tower.max_error for tower in towers), limits.max_feature_error),
        ("mean feature error", max(tower.mean_error for tower in towers), limits.mean_feature_error),
        ("largest score error", max(errors), limits.max_score_error),
        ("mean score error", sum(errors) / len(errors), limits.mean_score_error),
        ("share of images routed elsewhere", sum(image.flipped for image in images) / len(images), limits.max_flips),
    ):
        yield Check(name=name, found=found, limit=limit, passed=found <= limit)
    # Without a correlation, all scores of one side are equal: an engine that sees nothing must not pass.
    yield Check(
        name="Spearman's rank correlation",
        found=spearman,
        limit=limits.min_spearman,
        passed=spearman is not None and spearman >= limits.min_spearman,
    )


def _prompt(score: PromptScore, expected: Rows, found: Rows) -> PromptParity:
    judged = ~np.isnan(expected)
    errors = np.abs(found[judged] - expected[judged])
    return PromptParity(
        score=score,
        max_error=float(errors.max(initial=0)),
        mean_error=float(errors.mean()) if errors.size else 0.0,
        spearman=rank_correlation(expected[judged].tolist(), found[judged].tolist()),
    )


def _prompt_checks(limits: ParityLimits, prompts: Sequence[PromptParity]) -> Iterator[Check]:
    for each in prompts:
        for name, error, limit in (
            ("largest", each.max_error, limits.max_score_error),
            ("mean", each.mean_error, limits.mean_score_error),
        ):
            yield Check(
                name=f"{name} error of {each.score} beside a prompt", found=error, limit=limit, passed=error <= limit
            )
        yield Check(
            name=f"Spearman's rank correlation of {each.score} beside a prompt",
            found=each.spearman,
            limit=limits.min_spearman,
            passed=each.spearman is not None and each.spearman >= limits.min_spearman,
        )


def _batches(images: Iterable[GoldenImage], size: int) -> Iterator[list[GoldenImage]]:
    batch: list[GoldenImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
