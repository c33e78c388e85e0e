"""Writes actions on dead letters to Kafka, in transactions that only one process at a time can make."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_python_fixes import FixedProducer
from worker.intake.kafka_reading import explained
from worker.intake.log import CommitFailed, Fenced, LogError, Output
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

FLUSH_SECONDS: Final = 30.0
COMMIT_SECONDS: Final = 30.0
ABORT_SECONDS: Final = 5.0


class KafkaWriter:
    """Everybody who acts on dead letters of a group uses one transactional id, `<group>-dead-letters`.

    Opening a producer with that id ends what another left open and fences it: the broker refuses its next commit. So
    between opening and committing nobody else has committed, and what was read in between is still true. Without
    transactions (`delivery: at_least_once`) events are acked before their actions are sent.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None

    def write(self, prepare: Callable[[], Sequence[Output]]) -> None:
        try:
            with explained(self._settings):
                self._producer = self._producer or self._opened()
                outputs = prepare()
                if outputs:
                    self._append(outputs)
        except BaseException:
            # Its transaction may be open, or it was fenced; the next producer ends the one and replaces the other.
            if self._producer is not None:
                self._producer.discard()
                self._producer = None
            raise

    def close(self) -> None:
        if self._producer is not None:
            try:
                self._producer.close(timeout=5)
            except KafkaError as error:
                log.warning("kafka_close_failed", error=str(error))
            self._producer = None

    @property
    def _transactional(self) -> bool:
        return self._settings.delivery == "exactly_once"

    def _opened(self) -> Any:
        settings = self._settings
        options: dict[str, Any] = {
            **connection_options(settings),
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": settings.max_message_bytes,
            "max_block_ms": int(FLUSH_SECONDS * 1000),
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        if self._transactional:
            options["transactional_id"] = f"{settings.group_id}-dead-letters"
            options["transaction_timeout_ms"] = int(settings.transaction_timeout_seconds * 1000)
        producer = FixedProducer(**options)
        if self._transactional:
            try:
                producer.init_transactions()
            except BaseException:
                producer.discard()
                raise
        return producer

    def _append(self, outputs: Sequence[Output]) -> None:
        if not self._transactional:
            actions = [output for output in outputs if output.topic == self._settings.topics.dead_actions]
            self._send([output for output in outputs if output.topic != self._settings.topics.dead_actions])
            self._send(actions)
            return
        try:
            self._producer.begin_transaction()
            try:
                self._send(outputs)
            except (ProducerFencedError, InvalidProducerEpochError):
                raise
            except (KafkaError, CommitFailed):
                # So that readers of these topics need not wait until the broker ends it.
                _watched(self._producer.abort_transaction, ABORT_SECONDS)
                raise
            _watched(self._producer.commit_transaction, COMMIT_SECONDS)
        except (ProducerFencedError, InvalidProducerEpochError) as error:
            raise Fenced(
                "somebody else redrove or dropped dead letters at the same time; nothing was written"
            ) from error

    def _send(self, outputs: Sequence[Output]) -> None:
        """Returns when all are acked. Raises KafkaError and CommitFailed."""
        futures = [
            self._producer.send(output.topic, value=output.value, key=output.key, headers=list(output.headers))
            for output in outputs
        ]
        self._producer.flush(timeout=FLUSH_SECONDS)
        for future in futures:
            if not future.succeeded():
                if isinstance(future.exception, KafkaError):
                    raise future.exception
                raise CommitFailed("a record was not acknowledged in time")


def _watched(call: Callable[[], None], seconds: float) -> None:
    """Calls what waits without a timeout. Raises what it raises, and LogError after so many seconds."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # handed to the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="sluice-dead-letters", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise LogError(f"Kafka has not answered for {seconds:g} s; the outcome is unknown, and it is safe to try again")
    if failures:
        raise failures[0]
