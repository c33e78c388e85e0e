"""Promotions in a model repository on a real S3."""

from pathlib import Path

import pytest

from tests.unit.trt_build.towers import write_model
from worker.scoring.model import load_model
from worker.scoring.promotion import Promoter
from worker.scoring.repository import Repository, Version
from worker.scoring.s3_store import S3Store
from worker.scoring.stores import StoreConflict
from worker.settings import S3Settings


def test_a_version_is_promoted_served_and_rolled_back_and_a_stale_change_is_refused(
    s3_server: object, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)  # type: ignore[attr-defined]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = S3Settings(
        endpoint_url=s3_server.endpoint,  # type: ignore[attr-defined]
        region=s3_server.region,  # type: ignore[attr-defined]
        addressing_style="path",
    )
    store = S3Store(bucket, "models", settings)
    for version in ("1", "2", "3"):
        Repository(store).publish(write_model(tmp_path / version, version=version, seed=int(version)))

    def served() -> str:
        return load_model(f"s3://{bucket}/models/tiny", settings).manifest.version

    promoter = Promoter(store)
    promoter.promote(Version("tiny", "2"), by="ada")
    assert served() == "2"
    promoter.promote(Version("tiny", "1"), by="ada")
    assert served() == "1"

    seen = store.read("tiny/serving.json")
    promoter.promote(Version("tiny", "3"), by="bob")
    with pytest.raises(StoreConflict):
        store.replace("tiny/serving.json", b"{}", seen=seen)
    with pytest.raises(StoreConflict):
        store.replace("tiny/serving.json", b"{}", seen=None)

    assert promoter.roll_back("tiny", by="ada").serving.version == "1"
    assert served() == "1"
    for name in store.names():
        store.delete(name)
