"""Which engines are refused, and what is said."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from worker.scoring.engine_record import BatchProfile, EngineMismatch, EngineRecord, Target
from worker.scoring.manifest import FileSpec


def record(**changes: Any) -> EngineRecord:
    target = Target(backend="tensorrt", compute_capability="8.9", precision="fp16")
    fields = {
        "schema": "sluice.engine/1",
        "target": target,
        "backend_version": "10.16.1.11",
        "model": "sha256:a",
        "profile": BatchProfile(),
        "files": (FileSpec(path="x.engine", sha256="0" * 64),),
        "bytes": 1,
        "built_at": datetime(2026, 1, 1, tzinfo=UTC),
        "build_seconds": 1,
    }
    return EngineRecord(**(fields | changes))


def test_an_engine_is_taken_where_it_was_built_for() -> None:
    record().check(model="sha256:a", backend_version="10.16.1.11", compute_capability="8.9")


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({"model": "sha256:b"}, "it is of model sha256:a, this is sha256:b"),
        ({"backend_version": "11.4.0.106"}, "it was built by tensorrt 10.16.1.11, this is 11.4.0.106"),
        ({"compute_capability": "9.0"}, "it was built for compute capability 8.9, this is 9.0"),
    ],
)
def test_an_engine_for_something_else_is_refused_with_what_differs(here: dict[str, str], words: str) -> None:
    with pytest.raises(EngineMismatch, match=words) as caught:
        record().check(**here)
    assert "--rebuild" in str(caught.value)


def test_everything_that_differs_is_named_at_once() -> None:
    with pytest.raises(EngineMismatch) as caught:
        record().check(model="sha256:b", backend_version="11.0", compute_capability="9.0")
    assert str(caught.value).count("this is") == 3


@pytest.mark.parametrize(
    ("version", "runs"), [("10.16.1.11", True), ("10.17.0", True), ("10.15.0", False), ("11.0.0", False)]
)
def test_a_version_compatible_engine_runs_on_later_minor_versions_only(version: str, runs: bool) -> None:
    assert (record(version_compatible=True).differences(backend_version=version) == []) is runs


@pytest.mark.parametrize(("capability", "runs"), [("7.5", False), ("8.0", True), ("9.0", True), ("12.0", True)])
def test_an_ampere_plus_engine_runs_from_ampere_on(capability: str, runs: bool) -> None:
    portable = record(hardware_compatibility="ampere_plus")
    assert (portable.differences(compute_capability=capability) == []) is runs


def test_an_rtx_engine_runs_on_its_own_version_and_gpu_whatever_its_record_claims() -> None:
    target = Target(backend="tensorrt-rtx", compute_capability="8.9", precision="fp16")
    claims = record(
        target=target, backend_version="1.7.1.116", version_compatible=True, hardware_compatibility="ampere_plus"
    )
    assert len(claims.differences(backend_version="1.7.2.1", compute_capability="8.6")) == 2


def test_an_engine_with_another_second_file_target_or_builder_is_another() -> None:
    first, second, other = (FileSpec(path=f"{digit}.bin", sha256=digit * 64) for digit in "012")
    elsewhere = Target(backend="tensorrt", compute_capability="8.9", precision="bf16")
    different = [
        record(files=(first, second)),
        record(files=(first, other)),
        record(files=(first,)),
        record(files=(first, second), target=elsewhere),
        record(files=(first, second), backend_version="11.4.0"),
    ]
    assert len({engine.digest for engine in different}) == 5
    assert record(files=(first, second)).digest == different[0].digest


def test_a_target_is_named_after_what_it_is_for() -> None:
    assert Target(backend="tensorrt-rtx", compute_capability="12.0", precision="bf16").name == "tensorrt-rtx-sm120-bf16"
    assert Target(backend="openvino", precision="int8").name == "openvino-int8"
    assert Target(backend="torch", precision="bf16").name == "torch-bf16"
    assert Target(backend="torch", compute_capability="9.0", precision="bf16").name == "torch-sm90-bf16"


@pytest.mark.parametrize(
    "fields",
    [
        {"backend": "openvino", "compute_capability": "8.9", "precision": "bf16"},
        {"backend": "tensorrt", "precision": "fp16"},
        {"backend": "tensorrt", "compute_capability": "sm89", "precision": "fp16"},
    ],
)
def test_a_target_without_sense_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Target.model_validate(fields)


@pytest.mark.parametrize(
    ("sizes", "factor", "steps"),
    [
        ((1, 16, 64), 2, [1, 2, 4, 8, 16, 32, 64]),
        ((1, 24, 64), 4, [1, 4, 16, 24, 64]),
        ((3, 4, 12), 2, [4, 8, 12]),
        ((5, 5, 5), 2, [5]),
        ((1, 1, 1), 4, [1]),
    ],
)
def test_batches_are_filled_up_to_a_few_sizes_with_the_best_among_them(
    sizes: tuple[int, int, int], factor: int, steps: list[int]
) -> None:
    smallest, best, largest = sizes
    assert BatchProfile(smallest=smallest, best=best, largest=largest).steps(factor) == steps


def test_a_profile_rises() -> None:
    with pytest.raises(ValidationError, match="must be in ascending order"):
        BatchProfile(smallest=8, best=4, largest=64)
