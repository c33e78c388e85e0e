"""What an error of librdkafka means: the same kinds, by the same rules, as for kafka-python's."""

from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from worker.intake.kafka_faults import FaultKind, KafkaFault, classify

_OWN = {
    KafkaError._FENCED: errors.ProducerFencedError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicOrPartitionError,
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._TRANSPORT: errors.KafkaConnectionError,
    KafkaError._ALL_BROKERS_DOWN: errors.KafkaConnectionError,
    KafkaError._RESOLVE: errors.KafkaConnectionError,
    KafkaError._TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._MSG_TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._BAD_MSG: errors.CorruptRecordError,
}
"""librdkafka's own errors, which have negative codes; the others have the protocol's."""


def as_kafka_error(error: KafkaError | KafkaException) -> errors.KafkaError:
    """librdkafka's error as kafka-python's of the same meaning."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    kind = _OWN.get(inner.code(), errors.KafkaError) if inner.code() < 0 else errors.for_code(inner.code())
    return kind(inner.str())


def fault_of(error: KafkaError | KafkaException) -> KafkaFault:
    """What an error means. What librdkafka calls fatal is fatal; the client can do nothing more."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    fault = classify(as_kafka_error(error))
    if inner.fatal():
        return KafkaFault(FaultKind.FATAL, fault.message, fault.lasting)
    return fault
