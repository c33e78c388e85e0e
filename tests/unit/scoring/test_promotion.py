"""Which version of a model serves: chosen by a person, recorded, and taken back."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.unit.trt_build.towers import write_model
from worker.cli.main import app
from worker.scoring.engine_record import BatchProfile, EngineRecord, Target
from worker.scoring.manifest import FileSpec, ManifestError, load_manifest
from worker.scoring.model import find_model, load_model
from worker.scoring.promotion import Promoter
from worker.scoring.repository import Repository, Version
from worker.scoring.serving_record import Promotion, ServingRecord
from worker.scoring.stores import FolderStore, RepositoryError, StoreConflict
from worker.scoring.verification import Unverified

TARGET = Target(backend="openvino", precision="fp32")
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with three versions of a tiny model."""
    place = tmp_path / "models"
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        Repository(FolderStore(place)).publish(write_model(tmp_path / version, version=version))
    return place


@pytest.fixture
def promoter(place: Path) -> Promoter:
    minutes = iter(range(1000))
    return Promoter(FolderStore(place), now=lambda: START + timedelta(minutes=next(minutes)))


def add_engine(place: Path, version: str, *, passed: bool | None) -> EngineRecord:
    """Puts an engine into the repository, with the gate's verdict on it; None: it was never compared."""
    repository, where = Repository(FolderStore(place)), Version("tiny", version)
    manifest = repository.manifest(where)
    assert manifest is not None
    digest = hashlib.sha256(b"engine").hexdigest()
    record = EngineRecord(
        target=TARGET,
        backend_version="2026.4",
        model=manifest.digest,
        profile=BatchProfile(),
        files=(FileSpec(path=f"{digest}.xml", sha256=digest),),
        bytes=6,
        built_at=START,
        build_seconds=1,
    )
    repository.publish_engine(where, record, {f"{digest}.xml": b"engine"})
    if passed is not None:
        verdict = {"passed": passed, "engine": record.digest, "model": record.model}
        repository.write_report(where, TARGET, "parity.json", json.dumps(verdict))
    return record


def test_no_version_serves_until_one_is_promoted_however_new_it_is(place: Path, promoter: Promoter) -> None:
    with pytest.raises(ManifestError, match=r"no version was promoted.*\(existing: 1\.2\.0, 1\.9\.0, 1\.10\.0\)"):
        find_model(str(place / "tiny"))
    promoter.promote(Version("tiny", "1.9.0"), by="ada")
    assert load_model(str(place / "tiny")).manifest.version == "1.9.0"
    assert load_model(str(place / "tiny" / "1.2.0")).manifest.version == "1.2.0"


def test_the_record_says_who_promoted_what_when_and_on_which_parity_report(place: Path, promoter: Promoter) -> None:
    engine = add_engine(place, "1.9.0", passed=True)
    promoter.promote(Version("tiny", "1.9.0"), by="ada", note="better hands")
    serving = json.loads((place / "tiny" / "serving.json").read_text())["log"][-1]
    report = place / "tiny" / "1.9.0" / serving["engines"][0]["report"]
    assert serving == {
        "action": "promote",
        "version": "1.9.0",
        "digest": load_manifest(place / "tiny" / "1.9.0").digest,
        "by": "ada",
        "at": "2026-01-01T00:00:00Z",
        "note": "better hands",
        "engines": [
            {
                "engine": "openvino-fp32",
                "digest": engine.digest,
                "report": "engines/openvino-fp32/parity.json",
                "report_sha256": hashlib.sha256(report.read_bytes()).hexdigest(),
            }
        ],
    }


@pytest.mark.parametrize(("passed", "message"), [(None, "never compared.*sluice verify"), (False, "failed the parity")])
def test_a_version_whose_engine_has_not_passed_is_refused_unless_that_is_allowed(
    place: Path, promoter: Promoter, passed: bool | None, message: str
) -> None:
    add_engine(place, "1.9.0", passed=passed)
    with pytest.raises(Unverified, match=message):
        promoter.promote(Version("tiny", "1.9.0"), by="ada")
    assert promoter.record("tiny") is None
    record = promoter.promote(Version("tiny", "1.9.0"), by="ada", allow_unverified=True)
    assert [engine.report for engine in record.serving.engines] == [None]


def test_rolling_back_restores_what_served_before_step_by_step(place: Path, promoter: Promoter) -> None:
    for version in ("1.2.0", "1.9.0", "1.10.0"):
        promoter.promote(Version("tiny", version), by="ada")
    assert promoter.roll_back("tiny", by="bob").serving.version == "1.9.0"
    assert promoter.roll_back("tiny", by="bob").serving.version == "1.2.0"
    assert load_model(str(place / "tiny")).manifest.version == "1.2.0"
    with pytest.raises(RepositoryError, match=r"no version served before 1\.2\.0"):
        promoter.roll_back("tiny", by="bob")


def test_promoting_what_serves_already_changes_nothing(promoter: Promoter) -> None:
    first = promoter.promote(Version("tiny", "1.2.0"), by="ada")
    assert promoter.promote(Version("tiny", "1.2.0"), by="bob") == first


def test_a_version_that_is_missing_or_damaged_is_never_promoted_or_restored(place: Path, promoter: Promoter) -> None:
    with pytest.raises(RepositoryError, match=r"no such version \(existing: 1\.2\.0, 1\.9\.0, 1\.10\.0\)"):
        promoter.promote(Version("tiny", "2"), by="ada")
    promoter.promote(Version("tiny", "1.2.0"), by="ada")
    promoter.promote(Version("tiny", "1.9.0"), by="ada")
    (place / "tiny" / "1.2.0" / load_manifest(place / "tiny" / "1.2.0").graph.path).write_bytes(b"damaged")
    with pytest.raises(RepositoryError, match="is damaged"):
        promoter.promote(Version("tiny", "1.2.0"), by="ada")
    with pytest.raises(RepositoryError, match="is damaged"):
        promoter.roll_back("tiny", by="ada")
    assert load_model(str(place / "tiny")).manifest.version == "1.9.0"


def test_a_serving_version_that_was_replaced_is_not_served(place: Path, tmp_path: Path, promoter: Promoter) -> None:
    promoter.promote(Version("tiny", "1.2.0"), by="ada")
    write_model(tmp_path / "other", version="1.2.0", seed=7).rename(tmp_path / "other-model")
    (tmp_path / "other-model" / "manifest.json").replace(place / "tiny" / "1.2.0" / "manifest.json")
    with pytest.raises(ManifestError, match="was promoted"):
        find_model(str(place / "tiny"))


def test_of_two_promotions_at_the_same_time_one_is_refused(place: Path) -> None:
    class Late(FolderStore):
        """Someone else promotes after this one has read the record."""

        def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
            Promoter(FolderStore(place)).promote(Version("tiny", "1.10.0"), by="bob")
            super().replace(name, data, seen=seen)

    with pytest.raises(StoreConflict, match="changed at the same time"):
        Promoter(Late(place)).promote(Version("tiny", "1.2.0"), by="ada")
    assert load_model(str(place / "tiny")).manifest.version == "1.10.0"


@given(steps=st.lists(st.sampled_from(["a", "b", "c", "rollback"]), max_size=12))
def test_any_sequence_of_changes_is_a_stack_that_reads_back(steps: list[str]) -> None:
    record: ServingRecord | None = None
    stack: list[str] = []
    for step in steps:
        if step == "rollback":
            if record is None or record.before is None:
                assert len(stack) < 2
                continue
            stack.pop()
            entry = change("rollback", record.before.version)
        else:
            stack.append(step)
            entry = change("promote", step)
        record = ServingRecord(model="tiny", log=(*(record.log if record else ()), entry))
        assert record.serving.version == stack[-1]
        assert ServingRecord.model_validate_json(record.model_dump_json(by_alias=True)) == record


def test_a_record_that_was_edited_by_hand_into_nonsense_is_refused(place: Path, promoter: Promoter) -> None:
    promoter.promote(Version("tiny", "1.2.0"), by="ada")
    file = place / "tiny" / "serving.json"
    file.write_text(file.read_text().replace('"promote"', '"rollback"'))
    with pytest.raises(ManifestError, match="does not restore the version that served before"):
        find_model(str(place / "tiny"))


def test_the_commands_promote_list_and_roll_back(place: Path) -> None:
    sluice = commands(place)
    assert "tiny 1.2.0 serves; workers use it" in sluice("promote", "tiny", "1.2.0", "--by", "ada").stdout
    assert "already serves" in sluice("promote", "tiny", "1.2.0").stdout
    assert "in place of 1.2.0" in sluice("promote", "tiny", "1.10.0", "--by", "ada", "--note", "sharper").stdout
    assert "in place of 1.10.0" in sluice("rollback", "tiny", "--by", "bob").stdout
    history = sluice("history", "tiny").stdout
    assert [word for word in ("rollback", "sharper", "bob", "ada") if word in history] == [
        "rollback",
        "sharper",
        "bob",
        "ada",
    ]
    refused = sluice("promote", "tiny", "3", "--by", "ada")
    assert (refused.exit_code, "no such version" in refused.stderr.replace("\n", " ")) == (1, True)


def change(action: str, version: str) -> Promotion:
    return Promotion.model_validate(
        {"action": action, "version": version, "digest": "sha256:a", "by": "ada", "at": START}
    )


def commands(place: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["model", *arguments, "--repository", str(place)], env={"COLUMNS": "200"})

    return run
