"""How a record is finished: with what its events became."""

import itertools
from collections.abc import Sequence

from worker.intake.ledger import OffsetLedger
from worker.intake.log import Output
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import RecordJob, RecordWork
from worker.judging.judgement import Judgement
from worker.telemetry.metrics import Metrics
from worker.telemetry.trace_context import TRACEPARENT, TRACESTATE


class Completion:
    """Closes records in the ledger, each once the last of its events is finished. For the member's thread."""

    def __init__(self, ledger: OffsetLedger[Output], writer: VerdictWriter, metrics: Metrics) -> None:
        self._ledger = ledger
        self._writer = writer
        self._metrics = metrics

    def judge(self, job: RecordJob, judgement: Judgement) -> None:
        """Finishes an event with its verdict."""
        outputs = self._writer.write(job, judgement)
        if job.trace is not None:
            outputs = tuple(with_headers(output, job.trace.headers) for output in outputs)
            failure = judgement.failure
            job.trace.end(_attributes(job, judgement), None if failure is None else failure.message)
        self._finish(job, outputs)

    def move(self, job: RecordJob, moved: Output) -> None:
        """Finishes an event here with the record that moves it to another topic (worker.intake.deferral). The commit
        of this record's offset writes it, so the event is neither lost nor doubled."""
        self._metrics.events_deferred.labels(moved.topic).inc()
        self._finish(job, (self.traced_move(job, moved),))

    @staticmethod
    def traced_move(job: RecordJob, moved: Output) -> Output:
        """Ends the event's trace here, if it has one; the moved record carries its context on."""
        if job.trace is None:
            return moved
        job.trace.end({"sluice.moved_to": moved.topic})
        return with_headers(moved, job.trace.headers)

    def move_record(self, work: RecordWork, moved: Sequence[Output]) -> None:
        """As `move`, of all events of a record, none of which is finished. The caller counts them."""
        self._ledger.finish(work.ticket, tuple(moved), sum(len(output.value) for output in moved), is_moved=True)

    def close(self, work: RecordWork, outputs: tuple[Output, ...] = ()) -> None:
        """Finishes a whole record."""
        if work.pack is not None:
            pack = work.pack
            pack.outputs[work.slot] = outputs
            pack.remaining -= 1
            if pack.remaining:
                return
            outputs = tuple(itertools.chain.from_iterable(pack.outputs))
        size = 0
        for output in outputs:
            size += len(output.value)
        self._ledger.finish(work.ticket, outputs, size)

    def _finish(self, job: RecordJob, outputs: tuple[Output, ...]) -> None:
        work = job.work
        work.outputs[job.index] = outputs
        work.remaining -= 1
        if not work.remaining:
            alone = len(work.outputs) == 1
            self.close(work, outputs if alone else tuple(itertools.chain.from_iterable(work.outputs)))


def with_headers(output: Output, headers: Sequence[tuple[str, bytes]]) -> Output:
    """The output with the headers of a trace in place of any other's."""
    others = [(name, value) for name, value in output.headers if name not in (TRACEPARENT, TRACESTATE)]
    return output._replace(headers=(*others, *headers))


def _attributes(job: RecordJob, judgement: Judgement) -> dict[str, str | int | bool]:
    """What the event's span says of its verdict."""
    route = judgement.route
    said: dict[str, str | int | bool] = {
        "sluice.route.action": route.action,
        "sluice.route.rule": route.rule,
        "sluice.cached": judgement.cached,
        "sluice.attempts": job.attempts + 1,
    }
    if route.queue is not None:
        said["sluice.route.queue"] = route.queue
    if judgement.failure is not None:
        said["error.type"] = judgement.failure.reason.value
    return said
