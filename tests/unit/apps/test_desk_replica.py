import asyncio
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from worker.apps.desk import DeskArguments, DeskReplica, OneDeskOnly, build
from worker.settings import Settings, SettingsError


@pytest.mark.filterwarnings("ignore:coroutine")  # Ray's own __del__, which only a replica awaits
def test_a_second_replica_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(world_size=2))
    replica: Any = DeskReplica.__new__(DeskReplica)
    with pytest.raises(OneDeskOnly, match="set num_replicas to 1"):
        asyncio.run(replica.__init__(Settings(), tmp_path / "desk"))
    assert not (tmp_path / "desk").exists()
    del replica
    gc.collect()  # its warning is this test's


def test_a_desk_that_does_not_know_its_address_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"web\.public_url: is missing"):
        build(DeskArguments(data=tmp_path))
