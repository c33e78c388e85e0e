"""How a record is finished: with what its events became."""

import itertools
from collections.abc import Sequence

from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import Output
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import RecordJob, RecordWork
from worker.judging.judgement import Judgement
from worker.telemetry.metrics import Metrics


class Completion:
    """Closes records in the ledger, each once the last of its events is finished. For the member's thread."""

    def __init__(self, ledger: OffsetLedger[Output], writer: VerdictWriter, metrics: Metrics) -> None:
        self._ledger = ledger
        self._writer = writer
        self._metrics = metrics

    def judge(self, job: RecordJob, judgement: Judgement) -> None:
        """Finishes an event with its verdict."""
        self._finish(job, self._writer.write(job, judgement))

    def move(self, job: RecordJob, moved: Output) -> None:
        """Finishes an event here with the record that moves it to another topic (worker.intake.deferral). The commit
        of this record's offset writes it, so the event is neither lost nor doubled."""
        self._metrics.events_deferred.labels(moved.topic).inc()
        self._finish(job, (moved,))

    def move_record(self, work: RecordWork, moved: Sequence[Output]) -> None:
        """As `move`, of all events of a record, none of which is finished. The caller counts them."""
        self._ledger.finish(work.ticket, tuple(moved), sum(len(output.value) for output in moved), is_moved=True)

    def close(self, ticket: Ticket, outputs: tuple[Output, ...] = ()) -> None:
        """Finishes a whole record."""
        size = 0
        for output in outputs:
            size += len(output.value)
        self._ledger.finish(ticket, outputs, size)

    def _finish(self, job: RecordJob, outputs: tuple[Output, ...]) -> None:
        work = job.work
        work.outputs[job.index] = outputs
        work.remaining -= 1
        if not work.remaining:
            alone = len(work.outputs) == 1
            self.close(work.ticket, outputs if alone else tuple(itertools.chain.from_iterable(work.outputs)))
