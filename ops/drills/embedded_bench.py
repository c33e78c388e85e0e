"""What a drill on the embedded log works on: a data folder, a stream of events, workers, and the count of verdicts."""

import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import yaml

from ops.drills.publisher import Publisher, RecordPosition
from ops.drills.small_disk import SmallDisk
from ops.drills.stream_bench import DrillError, StreamBench
from ops.drills.verdict_counter import VerdictCounter
from ops.drills.worker_process import WorkerProcess
from worker.intake.embedded import embedded_log, open_embedded_topics
from worker.intake.log import Output
from worker.intake.sqlite_disk import DiskFull
from worker.settings import Settings, TopicSettings

RETRY_SECONDS = 0.1


class EmbeddedBench(StreamBench):
    """Workers of the command `sluice up --embedded` that share one data folder."""

    def __init__(self, folder: Path, *, rate: float = 40.0, disk: SmallDisk | None = None) -> None:
        """`folder` must exist and be this drill's own. With `disk` the data folder lies there; the workers' logs do
        not."""
        super().__init__(folder)
        self.disk = disk
        self.data = data = (folder if disk is None else disk.path) / "data"
        self._config = folder / "sluice.yaml"
        self._config.write_text(
            yaml.safe_dump({"files": {"roots": [str(self.images)]}, "telemetry": {"log_format": "json"}})
        )
        open_embedded_topics(Settings(), data).close()
        self.publisher = EmbeddedPublisher(data, self.images, rate=rate)
        self.counter = EmbeddedVerdictCounter(embedded_log(data))

    def start_worker(self, environment: Mapping[str, str] | None = None) -> WorkerProcess:
        arguments = ["--config", str(self._config), "--data", str(self.data)]
        worker = WorkerProcess(arguments, self.worker_log, dict(environment or {}))
        self._workers.append(worker)
        return worker

    def wait_until_at_work(self, count: int) -> None:
        """The first verdict shows that the one worker is at work; a second one only waits."""
        if count != 1:
            raise DrillError(f"{count} workers cannot share the embedded log")


class EmbeddedPublisher(Publisher):
    """Appends events as `sluice submit` does. While the disk is full it tries again."""

    def __init__(self, data: Path, images: Path, *, rate: float) -> None:
        super().__init__(images, rate=rate)
        self._data = data
        self._topic = TopicSettings().images
        self._topics = open_embedded_topics(Settings(), data)

    def stop(self) -> None:
        super().stop()
        self._topics.close()

    def _send(self, value: bytes) -> None:
        while not self._stopping.is_set():
            try:
                ((partition, offset),) = self._topics.append([Output(self._topic, value)])
            except DiskFull:
                time.sleep(RETRY_SECONDS)
                continue
            self.published[RecordPosition(partition.number, offset)] = time.monotonic()
            return

    def _flush(self) -> None:
        """Each append is on the disk when it returns."""


class EmbeddedVerdictCounter(VerdictCounter):
    """Reads the log's file with plain SQL: it shares no code with what it counts."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        names = TopicSettings()
        self._log = log
        self._topics = {names.verdicts: False, names.review: True}
        self._positions: dict[int, int] = {}

    def _next(self) -> Iterable[tuple[bool, bytes]]:
        with closing(_reader(self._log)) as db:
            found = [
                (self._topics[topic], row_id, offset, value)
                for row_id, topic in db.execute("SELECT id, topic FROM partitions").fetchall()
                if topic in self._topics
                for offset, value in db.execute(
                    "SELECT offset, value FROM records WHERE partition = ? AND offset >= ? ORDER BY offset LIMIT 500",
                    (row_id, self._positions.get(row_id, 0)),
                )
            ]
        for is_item, row_id, offset, value in found:
            self._positions[row_id] = offset + 1
            yield is_item, value
        if not found:
            time.sleep(0.05)


def _reader(log: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{log}?mode=ro", uri=True, timeout=10.0)
