"""What an error of Kafka means for whoever meets it: whether to try again, to abort, or to give up the client.

The kinds are librdkafka's (`rd_kafka_error_is_retriable`, `_txn_requires_abort`, `_is_fatal`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kafka import errors
from kafka.errors import KafkaError

from worker.intake.log import CommitFailed, CommitRefused, LogError, LogRefused
from worker.settings import KafkaSettings


class FaultKind(Enum):
    RETRIABLE = "retriable"
    """The same request may succeed later, without any other step."""
    ABORTABLE = "abortable"
    """The transaction has to be aborted; the same work may be committed by the next one."""
    FATAL = "fatal"
    """This client is of no more use. A new one may be, unless the fault lasts."""


@dataclass(frozen=True, slots=True)
class KafkaFault:
    """`lasting`: only a person can end it, by a permission, a topic, a password or a setting. `too_large`: the broker
    takes no record of this size. `message` is for people: what was refused, and what to do."""

    kind: FaultKind
    message: str
    lasting: bool = False
    too_large: bool = False


_FATAL = (
    errors.ProducerFencedError,
    errors.FencedInstanceIdError,
    errors.TransactionCoordinatorFencedError,
    errors.InvalidProducerEpochError,
    errors.InvalidProducerIdMappingError,
    errors.InvalidTxnStateError,
    errors.IllegalStateError,
)
_FATAL_AND_LASTING = {
    errors.TransactionalIdAuthorizationFailedError: (
        "no permission for the transactional id: allow Write on kafka.transactional_id, or on the prefix "
        "kafka.group_id where none is set"
    ),
    errors.ClusterAuthorizationFailedError: "no permission on the cluster",
    errors.SaslAuthenticationFailedError: "the broker refuses the user or its password",
    errors.UnsupportedSaslMechanismError: "the broker does not offer kafka.sasl_mechanism",
    errors.InvalidTransactionTimeoutError: (
        "kafka.transaction_timeout_seconds is more than the broker's transaction.max.timeout.ms"
    ),
    errors.InvalidSessionTimeoutError: (
        "kafka.session_timeout_seconds is outside the broker's group.min.session.timeout.ms and "
        "group.max.session.timeout.ms"
    ),
    errors.InconsistentGroupProtocolError: "other members of kafka.group_id assign partitions in another way",
    errors.InvalidGroupIdError: "kafka.group_id is no name for a group",
    errors.UnsupportedVersionError: "the broker is too old for what was asked; delivery: at_least_once asks for less",
    errors.UnsupportedForMessageFormatError: "the broker is too old for transactions; set delivery: at_least_once",
}
_ABORTABLE_AND_LASTING = {
    errors.TopicAuthorizationFailedError: "no permission for the topic",
    errors.GroupAuthorizationFailedError: "no permission for the group: allow Read on kafka.group_id",
    errors.UnknownTopicOrPartitionError: "the topic does not exist; make it with `sluice topics create`",
    errors.UnknownTopicIdError: "the topic was deleted; make it with `sluice topics create`",
    errors.InvalidTopicError: "that is no name for a topic",
    errors.InvalidRequiredAcksError: "the topic's settings do not allow acks=all",
    errors.PolicyViolationError: "a policy of the broker forbids it",
    errors.InvalidTimestampError: (
        "this machine's clock differs from the broker's by more than the topic's message.timestamp.after.max.ms or "
        "before.max.ms allow; set the clock right"
    ),
    errors.InvalidRecordError: "the topic does not take such records: a compacted topic takes none without a key",
    errors.UnsupportedCompressionTypeError: "the topic does not take the compression",
    errors.SecurityDisabledError: "the broker has no authorizer",
}
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_NAMED = re.compile(r"\b([A-Z]\w+Error)\b")


def classify(error: BaseException) -> KafkaFault:
    """What an error means. One that Kafka has no name for, or that we do not know, is abortable and passing."""
    roots = list(_roots(error))
    for root in roots:
        if isinstance(root, _TOO_LARGE):
            return KafkaFault(FaultKind.ABORTABLE, f"larger than the topic takes: {error}", too_large=True)
    for kind, texts in ((FaultKind.FATAL, _FATAL_AND_LASTING), (FaultKind.ABORTABLE, _ABORTABLE_AND_LASTING)):
        for root in roots:
            for known, text in texts.items():
                if isinstance(root, known):
                    return KafkaFault(kind, f"{text} ({type(root).__name__})", lasting=True)
    if any(isinstance(root, _FATAL) for root in roots):
        return KafkaFault(FaultKind.FATAL, str(error))
    passing = bool(roots) and roots[-1].retriable
    return KafkaFault(FaultKind.RETRIABLE if passing else FaultKind.ABORTABLE, str(error))


def commit_error(error: BaseException, where: str = "") -> CommitFailed:
    """The error of a commit of which nothing happened; `where` begins its text."""
    fault = classify(error)
    return CommitRefused(where + fault.message) if fault.lasting else CommitFailed(where + fault.message)


def open_error(error: BaseException, settings: KafkaSettings) -> LogError:
    """The error of a client that could not be opened, though the broker accepts our login."""
    fault = classify(error)
    text = f"Kafka at {settings.bootstrap_servers} cannot be used: {fault.message}; `sluice doctor` tells more"
    return LogRefused(text) if fault.lasting else LogError(text)


def _roots(error: BaseException) -> Iterator[KafkaError]:
    """The error, and those that kafka-python has put into it: as an argument, as a cause, or by name in its text."""
    if not isinstance(error, KafkaError):
        return
    yield error
    for inner in (*error.args, error.__cause__):
        if isinstance(inner, BaseException):
            yield from _roots(inner)
        elif isinstance(inner, str):
            for name in _NAMED.findall(inner):
                kind = getattr(errors, name, None)
                if kind is not None and kind not in (errors.NoError, errors.OperationNotAttemptedError):
                    yield kind()
