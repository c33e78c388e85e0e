"""The settings mean the same by librdkafka as by kafka-python, and what it does not have is refused by name."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from worker.intake.kafka_faults import FaultKind
from worker.intake.librdkafka_faults import fault_of
from worker.intake.librdkafka_options import client_options, consumer_options, producer_options
from worker.intake.lost_records import note_of, topic_in
from worker.settings import KafkaSettings, SettingsError

SCRAM = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "user",
}


def settings(**options: object) -> KafkaSettings:
    return KafkaSettings.model_validate({"client": "librdkafka", **options})


def test_librdkafka_knows_every_option_that_is_set() -> None:
    ours = settings(group_instance_id="worker-1", transactional_id="sluice-worker-1", **SCRAM, sasl_password="secret")
    consumer = Consumer(consumer_options(ours))
    consumer.close()
    Producer(producer_options(ours, 100_000))


def test_a_member_reads_committed_records_and_leaves_offsets_to_the_commit() -> None:
    options = consumer_options(settings(session_timeout_seconds=6))
    assert options["isolation.level"] == "read_committed"
    assert options["enable.auto.commit"] is options["enable.auto.offset.store"] is False
    assert options["auto.offset.reset"] == "error", "records that are gone are never skipped in silence"
    assert options["session.timeout.ms"] == 6000


def test_only_exactly_once_has_transactions() -> None:
    assert "transactional.id" in producer_options(settings(transactional_id="a"), 1)
    at_least_once = producer_options(settings(transactional_id="a", delivery="at_least_once"), 1)
    assert "transactional.id" not in at_least_once
    assert at_least_once["acks"] == "all"


def test_a_password_of_a_file_is_the_one_that_the_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "password"
    ours = settings(**SCRAM, sasl_password_file=file)
    file.write_text("first\n")
    assert client_options(ours)["sasl.password"] == "first"
    file.write_text("second\n")
    assert client_options(ours)["sasl.password"] == "second"
    file.unlink()
    with pytest.raises(SettingsError, match="the secret cannot be read"):
        client_options(ours)


@pytest.mark.parametrize("mechanism", ["AWS_MSK_IAM", "GSSAPI"])
def test_a_login_that_librdkafka_does_not_have_is_refused_with_what_to_do(mechanism: str) -> None:
    ours = settings(security_protocol="SASL_SSL", sasl_mechanism=mechanism)
    with pytest.raises(SettingsError, match=f"{mechanism}; set kafka.client: kafka-python"):
        client_options(ours)


@pytest.mark.parametrize(
    ("code", "kind", "lasting", "too_large"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, FaultKind.ABORTABLE, True, False),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, FaultKind.ABORTABLE, True, False),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, FaultKind.FATAL, True, False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, FaultKind.ABORTABLE, True, False),
        (KafkaError._UNKNOWN_TOPIC, FaultKind.ABORTABLE, True, False),
        (KafkaError._AUTHENTICATION, FaultKind.FATAL, True, False),
        (KafkaError._FENCED, FaultKind.FATAL, False, False),
        (KafkaError.MSG_SIZE_TOO_LARGE, FaultKind.ABORTABLE, False, True),
        (KafkaError._TRANSPORT, FaultKind.RETRIABLE, False, False),
        (KafkaError._MSG_TIMED_OUT, FaultKind.RETRIABLE, False, False),
        (KafkaError.NOT_LEADER_FOR_PARTITION, FaultKind.RETRIABLE, False, False),
        (KafkaError._STATE, FaultKind.ABORTABLE, False, False),
    ],
)
def test_errors_of_librdkafka_are_of_the_same_kinds_as_kafka_pythons(
    code: int, kind: FaultKind, lasting: bool, too_large: bool
) -> None:
    fault = fault_of(KafkaError(code))
    assert (fault.kind, fault.lasting, fault.too_large) == (kind, lasting, too_large)


def test_an_error_that_librdkafka_calls_fatal_is_fatal() -> None:
    assert fault_of(KafkaError(KafkaError._STATE, "gone", True)).kind is FaultKind.FATAL


@pytest.mark.parametrize("end", ["", "\0"])
def test_the_topics_id_beside_an_offset_reads_the_same_whichever_client_has_committed_it(end: str) -> None:
    assert topic_in(note_of("86590d9e-4980-4797-832c-3d9e8e1ce88c") + end) == "86590d9e-4980-4797-832c-3d9e8e1ce88c"
    assert topic_in(end) is None
