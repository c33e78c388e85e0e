"""An engine replica without Ray around it: the model of its settings, changed while it works."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from worker.apps import engine as module
from worker.apps.engine import EngineArguments, EngineReplica, build
from worker.apps.serve_engine import ModelNotServed
from worker.scoring.engine import EngineLost, blank_views
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


class LostEngine:
    max_batch = 4

    def infer(self, *_: Any) -> Any:
        raise EngineLost("the GPU is gone")

    def close(self) -> None: ...


@pytest.mark.parametrize("seen_by", ["a caller", "the health check"])
def test_a_replica_whose_engine_is_lost_answers_its_callers_and_ends_its_process(
    replica: EngineReplica, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    ended: SimpleQueue[int] = SimpleQueue()
    monkeypatch.setattr(module, "end_process", ended.put)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.01)
    reconfigure(replica, None)
    replica._hosted.put(LITE.digest, LostEngine(), BLANK)

    for _ in range(3):
        with pytest.raises(EngineLost, match="the GPU is gone"):
            asyncio.run(replica.infer(LITE.digest, BLANK) if seen_by == "a caller" else replica.check_health())

    assert ended.get(timeout=30) == 1
    time.sleep(0.05)
    assert ended.empty(), "once"
