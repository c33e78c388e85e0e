"""An engine replica without Ray around it: the model of its settings, changed while it works."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.apps.engine import EngineArguments, EngineReplica, build
from worker.apps.serve_engine import ModelNotServed
from worker.scoring.engine import blank_views
from worker.scoring.manifest import ManifestError, load_manifest
from worker.scoring.model import SHIPPED_MODELS
from worker.settings import Settings, SettingsError

LITE = load_manifest(SHIPPED_MODELS / "mst-lite")
BLANK = blank_views(LITE.views)


@pytest.fixture
def replica() -> Iterator[EngineReplica]:
    replica = EngineReplica(Settings(), calls_at_once=2, linger_seconds=300.0)
    yield replica
    replica.__del__()


def reconfigure(replica: EngineReplica, changes: dict[str, object] | None) -> None:
    asyncio.run(replica.reconfigure(changes, rank=None))  # type: ignore[arg-type]


def test_a_batch_is_answered_with_features_by_tower(replica: EngineReplica) -> None:
    reconfigure(replica, None)

    features = asyncio.run(replica.infer(LITE.digest, BLANK))

    assert {tower: rows.shape for tower, rows in features.items()} == {
        tower.name: (1, tower.features) for tower in LITE.towers
    }
    assert asyncio.run(replica.max_batch(LITE.digest)) >= 16
    asyncio.run(replica.check_health())


def test_another_model_is_served_beside_the_one_that_callers_still_ask_for(
    replica: EngineReplica, tmp_path: Path
) -> None:
    copied = shutil.copytree(SHIPPED_MODELS / "mst-lite", tmp_path / "other")
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"version": "other"}))
    other = load_manifest(copied).digest
    reconfigure(replica, None)
    with pytest.raises(ModelNotServed):
        asyncio.run(replica.infer(other, BLANK))

    reconfigure(replica, {"model": str(copied)})

    assert asyncio.run(replica.infer(other, BLANK)).keys() == asyncio.run(replica.infer(LITE.digest, BLANK)).keys()


def test_a_change_that_cannot_be_made_is_refused_and_changes_nothing(replica: EngineReplica) -> None:
    reconfigure(replica, None)

    with pytest.raises(SettingsError, match="user_config: modl: is not a known key; did you mean 'model'"):
        reconfigure(replica, {"modl": "mst-lite"})
    with pytest.raises(ManifestError, match="no model of this name"):
        reconfigure(replica, {"model": "mst-none"})

    asyncio.run(replica.infer(LITE.digest, BLANK))
    asyncio.run(replica.check_health())


def test_a_mistyped_setting_stops_the_build() -> None:
    with pytest.raises(SettingsError, match=r"args\.settings: modle: is not a known key"):
        build(EngineArguments(settings={"modle": "mst-lite"}))
