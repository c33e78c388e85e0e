"""What each error of Kafka means."""

import pytest
from kafka import errors
from kafka.errors import KafkaError

from worker.intake.kafka_faults import FaultKind, classify, commit_error, open_error
from worker.intake.log import CommitFailed, CommitRefused, LogRefused
from worker.settings import KafkaSettings


@pytest.mark.parametrize(
    ("error", "kind", "lasting"),
    [
        (errors.KafkaTimeoutError("no answer"), FaultKind.RETRIABLE, False),
        (errors.NotEnoughReplicasError(), FaultKind.RETRIABLE, False),
        (errors.CoordinatorLoadInProgressError(), FaultKind.RETRIABLE, False),
        (errors.OutOfOrderSequenceNumberError(), FaultKind.ABORTABLE, False),
        (errors.RebalanceInProgressError(), FaultKind.ABORTABLE, False),
        (KafkaError("something new"), FaultKind.ABORTABLE, False),
        (errors.TopicAuthorizationFailedError({"images"}), FaultKind.ABORTABLE, True),
        (errors.GroupAuthorizationFailedError("group"), FaultKind.ABORTABLE, True),
        (errors.UnknownTopicOrPartitionError(), FaultKind.ABORTABLE, True),
        (errors.InvalidRecordError(), FaultKind.ABORTABLE, True),
        (errors.InvalidTimestampError(), FaultKind.ABORTABLE, True),
        (errors.ProducerFencedError(), FaultKind.FATAL, False),
        (errors.InvalidTxnStateError(), FaultKind.FATAL, False),
        (errors.TransactionalIdAuthorizationFailedError(), FaultKind.FATAL, True),
        (errors.SaslAuthenticationFailedError(), FaultKind.FATAL, True),
        (errors.InvalidTransactionTimeoutError(), FaultKind.FATAL, True),
    ],
)
def test_an_error_has_a_kind(error: KafkaError, kind: FaultKind, lasting: bool) -> None:
    fault = classify(error)
    assert (fault.kind, fault.lasting) == (kind, lasting)
    assert fault.message


def test_an_error_inside_another_counts() -> None:
    # what kafka-python raises for each send after one that was refused
    wrapped = KafkaError("Cannot perform send because ...", errors.TopicAuthorizationFailedError())
    assert classify(wrapped).lasting
    # what it raises when partitions cannot be added to a transaction
    results = {"verdicts/0": errors.UnknownTopicOrPartitionError, "dead/0": errors.OperationNotAttemptedError}
    assert classify(KafkaError(f"Could not add partitions to transaction due to errors: {results}")).lasting
    assert (
        classify(KafkaError("Unexpected error in InitProducerIdResponse: [Error 50] ...")).kind is FaultKind.ABORTABLE
    )


@pytest.mark.parametrize("error", [errors.MessageSizeTooLargeError(), errors.RecordListTooLargeError()])
def test_what_is_too_large_is_told_apart(error: KafkaError) -> None:
    assert classify(error).too_large
    assert classify(KafkaError("Cannot perform send ...", error)).too_large
    assert not classify(error).lasting


def test_a_refusal_that_lasts_is_told_from_a_failure() -> None:
    refused = commit_error(errors.TopicAuthorizationFailedError({"verdicts"}), "verdicts: ")
    assert isinstance(refused, CommitRefused)
    assert str(refused).startswith("verdicts: no permission for the topic")
    failed = commit_error(errors.KafkaTimeoutError())
    assert isinstance(failed, CommitFailed)
    assert not isinstance(failed, CommitRefused)


def test_a_client_that_is_refused_for_good_is_told_from_one_that_may_be_opened_later() -> None:
    assert isinstance(open_error(errors.TransactionalIdAuthorizationFailedError(), KafkaSettings()), LogRefused)
    assert not isinstance(open_error(errors.KafkaTimeoutError(), KafkaSettings()), LogRefused)
