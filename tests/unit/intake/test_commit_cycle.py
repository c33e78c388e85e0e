"""What a commit's outcome means: repeat, shorten, tell, or give up."""

import json
import random

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from worker.intake.commit_cycle import UNHEALTHY_SECONDS, CommitCycle
from worker.intake.committer import CommitOutcome
from worker.intake.ledger import Batch, OffsetLedger
from worker.intake.log import CommitFailed, CommitRefused, Fenced, LogError, Output, OutputsTooLarge, Partition
from worker.judging.retries import RetryPolicy
from worker.settings import IntakeSettings
from worker.telemetry.metrics import Metrics

P0, P1 = Partition("images", 0), Partition("images", 1)


class Commits:
    """Takes batches and answers when the test says so."""

    def __init__(self) -> None:
        self.batches: list[Batch[Output]] = []

    def submit(self, batch: Batch[Output]) -> None:
        self.batches.append(batch)

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.commits = Commits()
        self.ledger: OffsetLedger[Output] = OffsetLedger()
        self.ledger.assign([P0, P1])
        self.cycle = CommitCycle(
            self.commits,  # type: ignore[arg-type]
            self.ledger,
            RetryPolicy(6, 0.2, 20.0, 120.0),
            IntakeSettings(),
            Metrics(CollectorRegistry()),
            random.Random(0),
        )

    def finish(self, partition: Partition, offset: int, *outputs: Output) -> None:
        self.ledger.finish(self.ledger.receive(partition, offset), outputs)

    def answer(self, error: LogError | None, now: float) -> bool:
        return self.cycle.finish(CommitOutcome(self.commits.batches[-1], error, 0.01), now)


def _letter(payload: str) -> Output:
    fields = {
        "schema": "sluice.dead-letter/1",
        "failure": {"reason": "undecodable_image", "message": "", "attempts": 1},
        "source": {"topic": "images", "partition": 0, "offset": 0, "index": 0},
        "key": None,
        "headers": [],
        "payload": payload,
        "payload_size": len(payload),
    }
    return Output("dead", json.dumps(fields).encode())


def test_an_output_that_is_too_large_is_shortened_and_all_is_committed_at_once() -> None:
    bench = Bench()
    small = Output("verdicts", b"{}")
    bench.finish(P0, 0, small, _letter("A" * 100_000))
    bench.finish(P1, 0, small)
    bench.cycle.turn(1.0, hurry=True)
    assert not bench.answer(OutputsTooLarge("too large", {1: 5000}), 1.0)
    bench.cycle.turn(1.0, hurry=False)
    first, second = bench.commits.batches
    assert second.offsets == first.offsets
    assert second.outputs[0] == small
    assert len(second.outputs[1].value) <= 5000
    assert bench.answer(None, 1.1)
    assert bench.ledger.held == 0
    assert bench.cycle.health_problem(1.1) is None


def test_an_output_that_cannot_be_shortened_is_told() -> None:
    bench = Bench()
    bench.finish(P0, 0, Output("verdicts", json.dumps({"schema": "sluice.verdict/1"}).encode()))
    bench.cycle.turn(0.0, hurry=True)
    assert not bench.answer(OutputsTooLarge("a verdict is too large", {0: 3}), 0.0)
    problem = bench.cycle.health_problem(UNHEALTHY_SECONDS)
    assert problem is not None
    assert "a verdict is too large" in problem


def test_a_refusal_that_lasts_is_unhealthy_at_once_and_a_failure_after_a_while() -> None:
    refused, failed = Bench(), Bench()
    for bench, error in ((refused, CommitRefused("no permission")), (failed, CommitFailed("no answer"))):
        bench.finish(P0, 0, Output("verdicts", b"{}"))
        bench.cycle.turn(0.0, hurry=True)
        bench.answer(error, 0.0)
    assert "no permission" in str(refused.cycle.health_problem(0.1))
    assert failed.cycle.health_problem(0.1) is None
    assert "no answer" in str(failed.cycle.health_problem(UNHEALTHY_SECONDS))


def test_a_commit_that_does_not_return_is_unhealthy_before_the_member_is_given_up() -> None:
    bench = Bench()
    bench.finish(P0, 0, Output("verdicts", b"{}"))
    bench.cycle.turn(0.0, hurry=True)
    assert bench.cycle.health_problem(1.0) is None
    assert "has not returned" in str(bench.cycle.health_problem(UNHEALTHY_SECONDS))


def test_health_comes_back_with_the_first_commit_that_succeeds() -> None:
    bench = Bench()
    bench.finish(P0, 0, Output("verdicts", b"{}"))
    bench.cycle.turn(0.0, hurry=True)
    bench.answer(CommitRefused("no permission"), 0.0)
    bench.cycle.turn(100.0, hurry=True)
    bench.answer(None, 100.0)
    assert bench.cycle.health_problem(100.0) is None


def test_the_same_failure_is_logged_once_a_minute() -> None:
    bench = Bench()
    bench.finish(P0, 0, Output("verdicts", b"{}"))
    with capture_logs() as logs:
        for second in range(0, 120, 2):
            bench.cycle.turn(float(second), hurry=True)
            if bench.cycle.busy:
                bench.answer(CommitRefused("no permission"), float(second))
    assert [entry["event"] for entry in logs] == ["commit_failed"] * 2


def test_a_member_that_was_replaced_goes_no_further() -> None:
    bench = Bench()
    bench.finish(P0, 0, Output("verdicts", b"{}"))
    bench.cycle.turn(0.0, hurry=True)
    with pytest.raises(Fenced):
        bench.answer(Fenced("another took its place"), 0.0)


def test_outputs_of_a_partition_that_went_away_meanwhile_are_left_alone() -> None:
    bench = Bench()
    bench.finish(P0, 0, _letter("A" * 10_000))
    bench.cycle.turn(0.0, hurry=True)
    bench.ledger.drop([P0])
    bench.ledger.assign([P0])
    bench.finish(P0, 0, Output("verdicts", b"another"))
    bench.answer(OutputsTooLarge("too large", {0: 500}), 0.0)
    bench.cycle.turn(0.0, hurry=True)
    assert [output.value for output in bench.commits.batches[-1].outputs] == [b"another"]
