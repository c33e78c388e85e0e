"""The folder that a backfill writes: Parquet files with verdicts, and a file that says how far each shard is."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from worker.backfill.request import BackfillRequest, BackfillState
from worker.scoring.stores import FileStore

SCHEMA: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("verdict_id", pa.string()),
        ("bucket", pa.string()),
        ("key", pa.string()),
        ("etag", pa.string()),
        ("version_id", pa.string()),
        ("content_hash", pa.string()),
        ("tenant", pa.string()),
        ("judged_at", pa.string()),
        ("quality", pa.float32()),
        ("action", pa.string()),
        ("queue", pa.string()),
        ("rule", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("failure", pa.string()),
        ("model", pa.string()),
        ("policy", pa.string()),
        ("verdict", pa.string()),
    ]
)
"""`failure` is the reason where an image could not be judged; `verdict` is the whole verdict as JSON."""


class BackfillError(Exception):
    """The results cannot be written where they should be."""


class ResultFolder:
    """What one shard writes. A part is named by the number of its first image, and written before the state that counts
    it. A part of a process that died in between is written again under the same name: each image is in the parts once.
    """

    def __init__(self, store: FileStore, request: BackfillRequest) -> None:
        """Raises BackfillError where the folder holds another run, RepositoryError where it cannot be read."""
        self._store = store
        self._request = request
        number, count = request.shard
        self._shard = f"{number:04d}-of-{count:04d}"
        self._state_name = f"state-{self._shard}.json"
        self.state = self._read_state()

    def write(self, verdicts: Sequence[bytes], after_key: str) -> None:
        """Adds a part with these verdicts; everything up to `after_key` is judged then. Raises RepositoryError."""
        rows = [_row(value) for value in verdicts]
        if rows:
            self._store.write(f"part-{self._shard}-{self.state.judged:012d}.parquet", _parquet(rows, self._request))
        failed = sum(row["failure"] is not None for row in rows)
        judged = self.state.judged + len(rows)
        update = {"judged": judged, "failed": self.state.failed + failed, "after_key": after_key}
        self._write_state(self.state.model_copy(update=update))

    def finish(self) -> None:
        """Notes that all is judged. Raises RepositoryError."""
        self._write_state(self.state.model_copy(update={"is_over": True}))

    def _read_state(self) -> BackfillState:
        where = self._store.where(self._state_name)
        others = [name for name in self._store.names("state-") if not name.endswith(self._state_name[-12:])]
        if others:
            raise BackfillError(f"{self._store.where(others[0])} is of a run with another number of shards")
        stored = self._store.read(self._state_name)
        if stored is None:
            return BackfillState(run=self._request.run, source=self._request.source)
        try:
            state = BackfillState.model_validate_json(stored)
        except ValidationError as error:
            raise BackfillError(f"{where}: not the state of a backfill: {error.error_count()} errors") from error
        if state.run != self._request.run:
            raise BackfillError(
                f"{where} is of another run ({state.source}; another model, policy or tenant counts, too); "
                "choose another folder"
            )
        return state

    def _write_state(self, state: BackfillState) -> None:
        self._store.write(self._state_name, state.model_dump_json(indent=2).encode())
        self.state = state


def _row(value: bytes) -> dict[str, Any]:
    verdict: Mapping[str, Any] = msgspec.json.decode(value)
    image, scores = verdict["image"] or {}, verdict["scores"] or {}
    route, failure = verdict["route"], verdict["failure"] or {}
    return {
        **{name: verdict[name] for name in ("event_id", "verdict_id", "content_hash", "tenant", "judged_at")},
        **{name: image.get(name) for name in ("bucket", "key", "etag", "version_id")},
        "quality": scores.get("quality"),
        "action": route["action"],
        "queue": route["queue"],
        "rule": route["rule"],
        "labels": route["labels"],
        "failure": failure.get("reason"),
        "model": verdict["model"],
        "policy": verdict["policy"],
        "verdict": value.decode(),
    }


def _parquet(rows: Sequence[Mapping[str, Any]], request: BackfillRequest) -> bytes:
    said = {"sluice.run": request.run, "sluice.source": request.source}
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata(said))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
