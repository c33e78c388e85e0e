"""The gate between a compiled engine and its use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trt_build.towers import FEATURES, SIZE, write_model
from trt_build.golden import PROMPTS, GoldenImage, golden_images
from trt_build.parity import ParityReport, compare
from worker.html_report.pages import render
from worker.policy import Policy, load_policy
from worker.samples.sample import load_samples
from worker.scoring.compiled import open_compiled
from worker.scoring.engine import PROMPT, Features, Prompts, Views
from worker.scoring.engine_record import BatchProfile, EngineRecord, Target
from worker.scoring.manifest import FileSpec, ParityLimits
from worker.scoring.model import Model, load_model
from worker.scoring.repository import Repository, Version
from worker.scoring.stores import FolderStore
from worker.scoring.verification import PARITY_REPORT, Unverified
from worker.view import ViewSpec

TARGET = Target(backend="openvino", precision="fp32")


@dataclass
class Recorded:
    """Gives features it was made with, row by row."""

    features: Mapping[str, np.ndarray]
    max_batch: int = 5
    served: int = 0

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        rows = slice(self.served, self.served + len(views["whole"]))
        self.served = rows.stop
        return {name: values[rows] for name, values in self.features.items()}

    def close(self) -> None:
        pass


def record(model: Model) -> EngineRecord:
    return EngineRecord(
        schema="sluice.engine/1",
        target=TARGET,
        backend_version="1",
        model=model.manifest.digest,
        profile=BatchProfile(),
        files=(FileSpec(path="a.xml", sha256="a" * 64), FileSpec(path="b.bin", sha256="b" * 64)),
        bytes=1,
        built_at=datetime(2026, 1, 1, tzinfo=UTC),
        build_seconds=1,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(write_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    file = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(
        "schema: sluice.policy/1\nversion: test\nrules:\n"
        "  - name: low\n    when: scores.quality < 3.0\n    route: {action: review, queue: quality}\n"
        "  - name: default\n    route: {action: pass}\n"
        "failures: {queue: failures, priority: 70}\n"
    )
    return load_policy(file)


IMAGES = 23


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(IMAGES, FEATURES)).astype(np.float32) for name in ("coarse", "fine")}


def images(number: int = IMAGES) -> Iterator[GoldenImage]:
    for index in range(number):
        yield GoldenImage(f"image-{index}", Path("x"), {"whole": np.zeros((SIZE, SIZE, 3), np.uint8)})


def run(
    model: Model, policy: Policy, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> ParityReport:
    return compare(
        model, Recorded(before), Recorded(after), record(model), images(), policy, reference_name="the reference"
    )


def failed(report: ParityReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def test_the_reference_passes_beside_itself(model: Model, policy: Policy, features: dict[str, np.ndarray]) -> None:
    report = run(model, policy, features, features)
    assert report.passed
    assert len(report.images) == IMAGES
    assert report.moved(ParityLimits()) == []
    assert [tower.max_error for tower in report.towers] == [0, 0]


def test_one_image_that_moved_is_named_with_both_routes(
    model: Model, policy: Policy, features: dict[str, np.ndarray]
) -> None:
    scores = [each.quality for each in model.heads.score(features)]
    high = int(np.argmax(scores))
    low = int(np.argmin(scores))
    assert scores[low] < 3 < scores[high]
    spoiled = {name: rows.copy() for name, rows in features.items()}
    for rows in spoiled.values():
        rows[high] = rows[low]
    report = run(model, policy, features, spoiled)
    assert not report.passed
    assert "largest score error" in failed(report)
    [moved] = report.moved(ParityLimits())
    assert (moved.name, moved.reference_route, moved.engine_route) == (f"image-{high}", "pass", "review quality")
    assert moved.reference == pytest.approx(scores[high])
    assert moved.engine == pytest.approx(scores[low])


def test_errors_are_measured_in_units_of_the_towers_own_scale(
    model: Model, policy: Policy, features: dict[str, np.ndarray]
) -> None:
    rms = float(np.sqrt(np.mean(features["coarse"] ** 2)))
    shifted = {"coarse": features["coarse"] + np.float32(0.1 * rms), "fine": features["fine"]}
    coarse, fine = run(model, policy, features, shifted).towers
    assert coarse.max_error == pytest.approx(0.1, rel=1e-3)
    assert coarse.mean_error == pytest.approx(0.1, rel=1e-3)
    assert (fine.max_error, fine.mean_error) == (0, 0)


def test_an_engine_that_sees_nothing_fails_the_rank_correlation(
    model: Model, policy: Policy, features: dict[str, np.ndarray]
) -> None:
    blind = {name: np.repeat(rows[:1], IMAGES, axis=0) for name, rows in features.items()}
    report = run(model, policy, features, blind)
    assert "Spearman's rank correlation" in failed(report)


def test_a_flip_at_a_threshold_that_only_one_tenant_has_counts(
    tmp_path: Path, model: Model, features: dict[str, np.ndarray]
) -> None:
    same = run(model, load_policy(_with_a_tenant(tmp_path, 3.0)), features, features)
    nearest = min(same.images, key=lambda image: abs(image.reference - 3.0))
    threshold = nearest.reference
    moved = {name: rows * 1.02 + 0.02 for name, rows in features.items()}
    report = run(model, load_policy(_with_a_tenant(tmp_path, threshold)), features, moved)
    flipped = [image for image in report.images if image.flipped]
    assert flipped
    for image in flipped:
        assert {image.reference_route, image.engine_route} == {"pass", "pass; acme: review acme"}
        assert (image.reference < threshold) != (image.engine < threshold)
    assert not run(model, load_policy(_with_a_tenant(tmp_path, 1.0)), features, moved).moved(
        ParityLimits(max_score_error=9)
    )


def _with_a_tenant(folder: Path, threshold: float) -> Path:
    """A policy that passes all but the images of one tenant that are below its threshold."""
    file = folder / f"{threshold}.yaml"
    file.write_text(
        "schema: sluice.policy/1\nversion: test\nrules:\n"
        "  - name: default\n    route: {action: pass}\n"
        "failures: {queue: failures, priority: 70}\n"
        f"tenants:\n  acme:\n    rules:\n      - name: own\n        when: scores.quality < {threshold!r}\n"
        "        route: {action: review, queue: acme}\n"
    )
    return file


def test_an_engine_that_reads_prompts_otherwise_fails_and_its_images_are_named(
    tmp_path: Path, policy: Policy, features: dict[str, np.ndarray]
) -> None:
    model = load_model(str(write_model(tmp_path, prompts=True)))
    fits = np.random.default_rng(1).uniform(1, 5, (IMAGES, 1)).astype(np.float32)
    before = {**features, PROMPT: fits}
    same = run(model, policy, before, before)
    assert same.passed
    assert [(each.score, each.max_error, each.spearman) for each in same.prompts] == [("correspondence", 0, 1)]

    moved = fits.copy()
    moved[7] = 6 - moved[7]
    report = run(model, policy, before, {**features, PROMPT: moved})
    assert "largest error of correspondence beside a prompt" in failed(report)
    assert report.moved(ParityLimits())[0].name == "image-7"
    page = render("trt_build", "parity.html.j2", report=report, moved=report.moved(ParityLimits()), rest=[])
    assert "Beside a prompt" in page
    assert f"{fits[7, 0]:.3f}" in page


def test_a_model_that_judges_prompts_is_compared_beside_prompts_long_and_foreign(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "b.png")
    view = ViewSpec(size=SIZE, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))
    of_a_folder = {image.path.name: image.prompt for image in golden_images({"whole": view}, tmp_path)}
    assert of_a_folder == {"a.png": PROMPTS[0], "b.png": PROMPTS[1]}

    sample = load_samples()[0]
    assert next(iter(golden_images({"whole": view}))).prompt == sample.prompt


def test_the_manifests_limits_stand_in_for_the_defaults(
    model: Model, policy: Policy, features: dict[str, np.ndarray]
) -> None:
    noisy = {name: rows + np.float32(0.03) for name, rows in features.items()}
    assert not run(model, policy, features, noisy).passed
    patient = ParityLimits(mean_feature_error=1, max_score_error=4, mean_score_error=4, min_spearman=0.1, max_flips=1)
    lenient = Model(model.manifest.model_copy(update={"parity": patient}), model.heads, model.graph)
    assert run(lenient, policy, features, noisy).passed
    assert lenient.manifest.digest != model.manifest.digest


def test_no_images_is_an_error_and_not_a_pass(model: Model, policy: Policy, features: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no images"):
        compare(
            model, Recorded(features), Recorded(features), record(model), images(0), policy, reference_name="reference"
        )


def test_an_engine_is_opened_only_when_this_very_one_has_passed(
    model: Model, policy: Policy, features: dict[str, np.ndarray], tmp_path: Path
) -> None:
    repository = Repository(FolderStore(tmp_path))
    version = Version("tiny", "1")
    repository.publish_engine(version, record(model), {"a.xml": b"", "b.bin": b""})

    def refusal() -> str:
        with pytest.raises(Unverified) as caught:
            open_compiled(repository, version, TARGET, model)
        return str(caught.value)

    assert "was never compared" in refusal()
    report = run(model, policy, features, {name: rows[::-1] for name, rows in features.items()})
    repository.write_report(version, TARGET, PARITY_REPORT, report.model_dump_json(by_alias=True))
    assert "failed the parity gate" in refusal()
    other = report.model_copy(update={"engine": "c" * 64, "passed": True})
    repository.write_report(version, TARGET, PARITY_REPORT, other.model_dump_json(by_alias=True))
    assert "was rebuilt since" in refusal()
    repository.write_report(version, TARGET, PARITY_REPORT, "{")
    assert "is damaged" in refusal()
