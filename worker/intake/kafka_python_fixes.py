"""Faults of kafka-python that lose, duplicate or stall records, each with our fix.

This is the only file of Sluice that uses kafka-python's private parts. All of it was read and tried against
kafka-python 3.0.12; pyproject.toml pins the version. tests/unit/intake/test_kafka_*_fixes.py show each fault in the
unfixed library, and fail when a new version has fixed one: then drop the fix here. test_kafka_python_private.py fails
when a private part moves. docs/kafka-client.md lists what was compared with Apache Kafka's Java client.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import (
    Cancelled,
    FencedInstanceIdError,
    KafkaConnectionError,
    KafkaError,
    UnknownError,
    for_code,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.producer.transaction_manager import TransactionManager
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.protocol.metadata import MetadataRequest

DISCARD_SECONDS = 2.0


def _is_news(record: logging.LogRecord) -> bool:
    """False for "Metadata refresh: failed Cancelled", an error that kafka-python logs whenever a consumer is closed."""
    return not (isinstance(record.args, tuple) and any(isinstance(value, Cancelled) for value in record.args))


logging.getLogger("kafka.cluster").addFilter(_is_news)


class FixedAssignor(CooperativeStickyAssignor):  # type: ignore[misc]  # kafka-python has no types
    """The cooperative-sticky assignor, without double ownership of a partition.

    Fault 1 (3.0.12): a member claims the partitions of its last assignment for ever, also after the group has put it
    out and given them to others. The leader then leaves a partition with the false claimant while its owner still
    commits for it: records are judged twice. Apache Kafka fixed the same fault as KAFKA-12984.

    Two fixes: a member claims only what it owns now (`owned`), and a leader gives a partition that two members claim to
    neither, so that both give it up before the next round assigns it. The second one also protects against members that
    run an older Sluice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owned: Callable[[], Iterable[TopicPartition]] = tuple

    def metadata(self, topics: Any) -> Any:
        self.member_assignment = sorted(self.owned())
        return super().metadata(topics)

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        claims = Counter(
            partition for member in members for partition in self.parse_member_metadata(member.metadata).partitions
        )
        assignments: dict[str, Any] = super().assign(cluster, members)
        disputed = {partition for partition, claimants in claims.items() if claimants > 1}
        if disputed:
            assignments = {member: _without(disputed, given) for member, given in assignments.items()}
        return assignments


def _without(partitions: set[TopicPartition], assignment: Any) -> Any:
    kept = [
        (topic, [number for number in numbers if TopicPartition(topic, number) not in partitions])
        for topic, numbers in assignment.assigned_partitions
    ]
    return ConsumerProtocolAssignment(assignment.version, [(topic, numbers) for topic, numbers in kept if numbers], b"")


class FixedCoordinator(ConsumerCoordinator):  # type: ignore[misc]
    """The consumer's side of the group protocol, without five faults of 3.0.12.

    Fault 3: when partitions were added, the leader rejoins because its metadata has changed, not because
    `rejoin_needed` is set. If `poll` times out between JoinGroup and SyncGroup, `need_rejoin` turns false, the new
    assignment is never taken and heartbeats stay off: the broker removes the member, which reads nothing more until it
    is restarted. Java goes on while a join is pending (`rejoinNeededOrPending`).

    Fault 4: when the broker answers a JoinGroup or SyncGroup with UNKNOWN_MEMBER_ID, the member joins again without
    `on_partitions_lost`, keeps its positions from before, and goes on with partitions that another member has read
    meanwhile: records are judged twice. Java calls `onJoinPrepare` again (`resetStateAndRejoin`).

    Fault 5: an OffsetFetch that outlives its `poll` is kept under its set of partitions, and answers the next fetch for
    the same set, however much later: after partitions have been away and come back, reading starts from offsets of long
    ago. Java compares the generation (`PendingCommittedOffsetRequest.sameRequest`).

    Fault 7: only the member that made the assignment looks for new partitions. A static member that led the group and
    was restarted is not told that it leads (that came with KIP-814, JoinGroup 9; 3.0.12 speaks 7), so nobody looks.
    Here each member looks.

    Fault 8: a static member whose place another process has taken only stops its heartbeats, and polls on for ever
    without partitions that move on. Here `poll` raises FencedInstanceIdError, as Java's does.
    """

    _REBALANCE_LISTENER_WARN_SECS = float("inf")
    """The library warns of a listener that takes a second, as it may block heartbeats. Ours is asynchronous: while it
    waits for the last commit of a revoked partition, the network thread goes on."""

    _assignment_snapshot: dict[str, set[int]] | None
    _fenced: FencedInstanceIdError | None = None
    _closing = False
    on_committed: Callable[[Mapping[TopicPartition, OffsetAndMetadata]], None] | None = None
    """Called on the network thread with offsets that were fetched, before they become positions. The library drops the
    metadata that was committed with them, so nobody could tell there that an offset belongs to a deleted topic."""

    def poll(self, timeout_ms: float | None = None) -> Any:
        if self._fenced is not None:
            raise self._fenced
        return super().poll(timeout_ms)

    def close(self, **options: Any) -> None:
        """Leaves the group, also as a static member, because the worker is stopping and its partitions should move at
        once.
        """
        self._closing = True
        super().close(**options)

    def is_dynamic_member(self) -> bool:
        """Whether to say so when leaving the group."""
        return self._closing or super().is_dynamic_member()

    async def _send_heartbeat_request(self) -> None:
        try:
            await super()._send_heartbeat_request()
        except FencedInstanceIdError as error:
            self._fenced = error
            raise

    def need_rejoin(self) -> bool:
        if self._join_task is not None:
            return True
        if self._assignment_snapshot is None and self.stable() and all(self._metadata_snapshot.values()):
            self._assignment_snapshot = self._metadata_snapshot
        if super().need_rejoin():
            self.rejoin_needed = True  # until the assignment is taken, whatever the reason was
            return True
        return False

    async def fetch_committed_offsets_async(self, *args: Any, **options: Any) -> Mapping[TopicPartition, Any]:
        offsets: Mapping[TopicPartition, Any] = await super().fetch_committed_offsets_async(*args, **options)
        if self.on_committed is not None:
            self.on_committed(offsets)
        return offsets

    def reset_generation(self, *args: Any, **options: Any) -> None:
        super().reset_generation(*args, **options)
        self.rejoining = False  # so that the next attempt begins with on_partitions_lost

    async def _on_join_complete_async(self, *args: Any) -> None:
        self._offset_fetch_futures.clear()
        await super()._on_join_complete_async(*args)


class FixedTransactionManager(TransactionManager):  # type: ignore[misc]
    """The producer's transactions, without one fault of 3.0.12.

    Fault 2: offsets that were to be committed by a transaction survive its abort, and the next transaction commits them
    without their outputs: events are lost. Java clears them with the rest of the transaction's state.
    """

    def _complete_transaction(self) -> None:
        super()._complete_transaction()
        self._pending_txn_offset_commits.clear()


class FixedClient(KafkaNetClient):  # type: ignore[misc]
    """The producer's connections, without one fault of 3.0.12.

    Fault 9: `await_ready` raises when a broker cannot be reached, where the sender expects False, and the sender then
    forgets the request that it was about to send. After a broker was restarted, a transaction waits for ever (a flush
    for 30 s). Java tries the request again (`maybeFindCoordinatorAndRetry`).
    """

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except KafkaConnectionError:
            return False


class LoginCutOff(Exception):
    """The broker ended the connection in the middle of the login. That is how it refuses one: kafka-python 3.0.12 drops
    its answer, because the end of the connection comes with it."""


class LoginMissing(Exception):
    """The broker ended the connection at the first request: it asks for a login, and we sent none."""


class LoginClient(KafkaNetClient):  # type: ignore[misc]
    """Logs in to one broker once, where kafka-python's own clients try until a timeout and do not say why."""

    def log_in(self, timeout_seconds: float) -> None:
        """Connects to the first bootstrap broker. Raises LoginCutOff, LoginMissing, KafkaError, OSError."""
        self._manager._net.start()
        self._manager.run(self._log_in, timeout_seconds)

    def close(self) -> None:
        super().close()
        self._manager._net.stop()

    async def _log_in(self, timeout_seconds: float) -> None:
        (broker,) = self._manager.cluster.bootstrap_brokers()[:1]
        connection = self._manager.get_connection(
            broker.node_id, timeout_ms=timeout_seconds * 1000, pop_on_close=False, refresh_metadata_on_err=False
        )
        try:
            await connection
        except KafkaConnectionError as error:
            if connection.broker_version is not None and connection.sasl_enabled:
                raise LoginCutOff("it ends the connection in the middle of the login") from error
            raise
        try:
            await connection.send_request(MetadataRequest(topics=[]))
        except KafkaConnectionError as error:
            if not connection.sasl_enabled:
                raise LoginMissing(str(error)) from error
            raise


class FixedAdminClient(KafkaAdminClient):  # type: ignore[misc]
    """An admin client that also sends requests which the library has no method for."""

    def __init__(self, **options: Any) -> None:
        """`options` are KafkaAdminClient's."""
        try:
            super().__init__(**options)
        except BaseException:
            _stop_network(self)
            raise

    def ask(self, request: Any) -> type[KafkaError]:
        """Sends a request to any broker. Returns its answer, as the class of its error code."""
        answer = self._manager.run(self._manager.send, request)
        kind: type[KafkaError] = for_code(answer.error_code)
        return kind

    def broker_version(self) -> tuple[int, ...]:
        """Of the broker, as far as the requests that it understands tell."""
        version: tuple[int, ...] = self._manager.broker_version
        return version


def _stop_network(client: Any) -> None:
    """Fault 12 (3.0.12): a client that finds no broker raises and leaves its network thread behind."""
    if hasattr(client, "_client"):
        client._client.close()


class FixedConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer that reads as a member of a group, by cooperative-sticky assignment."""

    def __init__(self, **options: Any) -> None:
        """`options` are KafkaConsumer's; the assignor is ours."""
        assignor = FixedAssignor()
        try:
            super().__init__(partition_assignment_strategy=[assignor], **options)
        except BaseException:
            _stop_network(self)
            raise
        assignor.owned = self._subscription.assigned_partitions
        self._coordinator.__class__ = FixedCoordinator

    def watch_committed(self, watch: Callable[[Mapping[TopicPartition, OffsetAndMetadata]], None]) -> None:
        """Calls `watch` on the network thread with the committed offsets of partitions that were assigned, before
        anything is fetched from there. It may pause them."""
        self._coordinator.on_committed = watch

    def topic_id(self, topic: str) -> str | None:
        """The topic's id (KIP-516) as of the latest metadata; None where the broker gives none."""
        found = self._client.cluster.topic_id(topic)
        return str(found) if found is not None and found.int else None

    def position_if_known(self, partition: TopicPartition) -> int | None:
        """The offset that will be read next; None while it is looked up. Does not wait, as `position` may."""
        position = self._subscription.position(partition)
        return position.offset if position is not None else None

    def complete(self, future: Future) -> None:
        """Completes a future that a rebalance listener awaits; from any thread.

        Completed directly, the listener would go on only when the network thread wakes for another reason.
        """
        with suppress(RuntimeError):  # the consumer is closed, and nobody awaits anything
            self._manager.call_soon(future.success, None)

    def unpark_fetched(self) -> None:
        """Lets `poll` go on with what was fetched of partitions that were paused and are no longer.

        Fault 6 (3.0.12): what was fetched of a paused partition is parked, and taken up again only while the fetcher's
        slot for the batch in hand is None. A batch read to its end leaves the slot drained, not None, and the parked
        ones would never be read.
        """
        fetcher = self._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
            fetcher._next_partition_records = None


class FixedProducer(KafkaProducer):  # type: ignore[misc]
    """A producer that survives failed transactions and restarted brokers."""

    def __init__(self, **options: Any) -> None:
        """`options` are KafkaProducer's."""
        super().__init__(**options)
        self._sender._client.__class__ = FixedClient
        if self._transaction_manager is not None:
            self._transaction_manager.__class__ = FixedTransactionManager

    def discard(self) -> None:
        """Ends the producer without sending what it still holds.

        Fault 10 (3.0.12): `close` flushes first, and when that times out it raises and leaves the sender's thread
        running, which may yet send what was given up.
        """
        self._unregister_cleanup()
        self._closed = True
        self._sender.force_close()
        self._sender.join(DISCARD_SECONDS)

    def flush(self, timeout: float | None = None) -> None:
        """Returns when every record sent before is acknowledged or has failed.

        Fault 11 (3.0.12): when the broker finds a batch too large, it is split, which wakes whoever waits for it; then
        `flush` raises UnknownError though nothing has failed. Java waits for the batches of the split
        (`ProduceRequestResult.awaitAllDependents`).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                super().flush(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except UnknownError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
            else:
                return
