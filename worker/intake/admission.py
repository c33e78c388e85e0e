"""From a record to jobs, and from jobs to those whose scores are known already."""

from collections.abc import Mapping

import structlog

from schemas import Failure, FailureReason, S3Reference, Scores
from worker.cache.score_cache import ScoreCache, ScoreKey
from worker.intake.ledger import Ticket
from worker.intake.log import Record
from worker.intake.parse import MalformedRecord, parse
from worker.intake.work import RecordJob, RecordWork
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)


class Admission:
    """Reads records as they are polled. Costs no fetch; the cache is asked once for all of a poll."""

    def __init__(self, cache: ScoreCache, metrics: Metrics, *, max_event_bytes: int) -> None:
        self._cache = cache
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes

    def open(self, record: Record, ticket: Ticket, now: float) -> list[RecordJob] | Failure:
        """One job an event; none for a record that only tells of other things than new images."""
        try:
            parsed = parse(record, max_bytes=self._max_event_bytes)
        except MalformedRecord as error:
            return Failure(reason=error.reason, message=str(error))
        except Exception as error:  # a fault of ours must not stop the stream
            logger.exception("parse_failed", topic=record.partition.topic, offset=record.offset)
            message = f"{type(error).__name__} while reading the record"
            return Failure(reason=FailureReason.INTERNAL_ERROR, message=message)
        if parsed.ignored:
            self._metrics.events.labels("ignored").inc(parsed.ignored)
        work = RecordWork(record, ticket, [()] * len(parsed.events), len(parsed.events))
        return [RecordJob(event, now, work, index) for index, event in enumerate(parsed.events)]

    def look_up(self, jobs: list[RecordJob]) -> tuple[list[tuple[RecordJob, Scores]], list[RecordJob]]:
        """Splits the jobs: those whose object was scored before, with its scores and unfetched; the others."""
        objects = [(job, job.event.image) for job in jobs if isinstance(job.event.image, S3Reference)]
        if not objects:
            return [], jobs
        hashes = self._cache.content_hashes([image for _, image in objects])
        hashed: list[RecordJob] = []
        for (job, _), content_hash in zip(objects, hashes, strict=True):
            if content_hash is not None and job.event.sha256 in (None, content_hash.removeprefix("sha256:")):
                job.content_hash = content_hash
                hashed.append(job)
        scores = self._cache.scores([self._key(job) for job in hashed])
        known = [(job, found) for job, found in zip(hashed, scores, strict=True) if found is not None]
        served = {job for job, _ in known}
        return known, [job for job in jobs if job not in served]

    def features(self, jobs: list[RecordJob]) -> list[Mapping[str, bytes] | None]:
        """The features of jobs that were scored before, where they are still known."""
        return self._cache.features([self._key(job) for job in jobs])

    def _key(self, job: RecordJob) -> ScoreKey:
        return self._cache.key(job.content_hash or "", job.event.prompt)
