"""Faults of kafka-python's consumer that we fix, shown in the library as it is and gone in ours; no broker.

test_kafka_producer_fixes.py has those of its producer.

A test "the library ..." that fails after an upgrade means that the fault is mended upstream: drop our fix and the test.
"""

import logging
from collections.abc import Coroutine, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import Generation
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import Cancelled, FencedInstanceIdError, KafkaTimeoutError, UnknownMemberIdError
from kafka.future import Future
from kafka.producer.transaction_manager import TransactionManager
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import MemberState

from worker.intake.kafka_python_fixes import (
    FixedAssignor,
    FixedConsumer,
    FixedCoordinator,
)

TOPIC = "images"
P0, P1, P2, P3 = (TopicPartition(TOPIC, number) for number in range(4))


class Cluster:
    """What an assignor asks of the cluster's metadata."""

    def topics(self) -> set[str]:
        return {TOPIC}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("it waits for something")


class Network:
    """The parts of kafka-python's connection manager that joining a group uses; nothing takes time."""

    def __init__(self) -> None:
        self._net = self
        self.pending_join: Future | None = None

    def call_soon(self, function: Any, *args: Any) -> Future:
        if self.pending_join is not None:
            return self.pending_join
        future = Future()
        try:
            return future.success(run(function(*args)))
        except Exception as error:  # noqa: BLE001
            return future.failure(error)

    def call_soon_threadsafe(self, function: Any) -> None:
        function()

    async def wait_for(self, future: Future, timeout_ms: float | None) -> Any:
        if not future.is_done:
            raise KafkaTimeoutError
        if future.failed():
            raise future.exception
        return future.value


class Member:
    """A coordinator that owns partitions, without a broker; `answers` are what JoinGroup and SyncGroup bring."""

    def __init__(self, kind: type[ConsumerCoordinator], owned: Iterable[TopicPartition]) -> None:
        self.network = Network()
        self.events: list[tuple[str, set[TopicPartition]]] = []
        subscription = SubscriptionState("earliest")
        subscription.subscribe([TOPIC])
        subscription.assign_from_subscribed(list(owned))
        client = SimpleNamespace(_manager=self.network)
        self.network.cluster = SimpleNamespace(  # type: ignore[attr-defined]
            request_update=lambda: None,
            add_listener=lambda _: None,
            partitions_for_topic=lambda _: {0, 1, 2, 3},
            set_topics=lambda _: None,
            broker_metadata=lambda _: None,
        )
        self.assignor = CooperativeStickyAssignor()
        self.coordinator = kind(
            client, subscription, group_id="g", api_version=(4, 1), enable_auto_commit=False, assignors=[self.assignor]
        )
        self.subscription = subscription
        self.coordinator._generation = Generation(5, "member-1", "cooperative-sticky")
        self.coordinator.state = MemberState.STABLE
        self.coordinator.rejoin_needed = False
        self.coordinator._joined_subscription = {TOPIC}
        self.coordinator.ensure_coordinator_ready_async = _ready
        self.coordinator._invoke_rebalance_listener_async = self._hear
        subscription.rebalance_listener = object()

    async def _hear(self, event: str, partitions: set[TopicPartition]) -> None:
        self.events.append((event, set(partitions)))


async def _ready(timeout_ms: float | None = None) -> bool:
    return True


def given(*partitions: TopicPartition) -> bytes:
    numbers = [partition.partition for partition in partitions]
    return ConsumerProtocolAssignment(1, [(TOPIC, numbers)], b"").encode()  # type: ignore[no-any-return]


# -- fault 1: claims -------------------------------------------------------------------------------------------------


def claims_after_losing_membership(kind: type[CooperativeStickyAssignor]) -> list[Any]:
    assignor = kind()
    owned = {P0, P1}
    if isinstance(assignor, FixedAssignor):
        assignor.owned = lambda: owned
    assignor.on_assignment(ConsumerProtocolAssignment(1, [(TOPIC, [0, 1])], b""), 3)
    owned.clear()  # as the subscription is after on_partitions_lost
    return list(assignor.metadata([TOPIC]).owned_partitions)


def test_the_library_claims_partitions_that_it_has_lost() -> None:
    assert claims_after_losing_membership(CooperativeStickyAssignor) != []


def test_our_member_claims_only_what_it_owns() -> None:
    assert claims_after_losing_membership(FixedAssignor) == []


def disputed_assignment(kind: type[CooperativeStickyAssignor]) -> dict[str, set[TopicPartition]]:
    """`owner` owns all partitions; `frozen` owned them before it was put out, and still claims all but one."""

    def joins(name: str, owned: set[TopicPartition]) -> Any:
        assignor = FixedAssignor()
        assignor.owned = lambda: owned
        return SimpleNamespace(member_id=name, metadata=assignor.metadata([TOPIC]))

    members = [joins("owner", {P0, P1, P2, P3}), joins("frozen", {P0, P1, P2})]
    assigned = kind().assign(Cluster(), members)
    return {name: set(assignment.partitions()) for name, assignment in assigned.items()}


def test_the_library_gives_a_partition_to_a_false_claimant_while_its_owner_commits_for_it() -> None:
    assert disputed_assignment(CooperativeStickyAssignor)["frozen"] != set()


def test_our_leader_gives_a_disputed_partition_to_nobody_until_both_have_released_it() -> None:
    assigned = disputed_assignment(FixedAssignor)
    assert assigned["frozen"] == set()
    assert assigned["owner"] <= {P3}


def test_without_disputes_our_leader_assigns_as_the_library_does() -> None:
    def joins(name: str, owned: set[TopicPartition]) -> Any:
        assignor = FixedAssignor()
        assignor.owned = lambda: owned
        return SimpleNamespace(member_id=name, metadata=assignor.metadata([TOPIC]))

    def assigned(kind: type[CooperativeStickyAssignor]) -> dict[str, list[TopicPartition]]:
        members = [joins("a", {P0, P1, P2}), joins("b", {P3}), joins("c", set())]
        return {name: given.partitions() for name, given in kind().assign(Cluster(), members).items()}

    assert assigned(FixedAssignor) == assigned(CooperativeStickyAssignor)


# -- fault 3: a poll that ends between JoinGroup and SyncGroup ---------------------------------------------------------


def takes_the_assignment_after_an_interrupted_join(kind: type[ConsumerCoordinator]) -> bool:
    """Partitions were added; the poll ends while the group is being joined; is the assignment taken by the next?"""
    member = Member(kind, owned={P0, P1})
    coordinator = member.coordinator
    coordinator._assignment_snapshot = {TOPIC: {0, 1}}
    coordinator._metadata_snapshot = {TOPIC: {0, 1, 2, 3}}
    member.network.pending_join = Future()
    assert run(coordinator.join_group_async(timeout_ms=50)) is False
    coordinator._assignment_snapshot = coordinator._metadata_snapshot  # as the leader does when it has assigned
    needed = coordinator.need_rejoin()
    member.network.pending_join.success(given(P0, P1, P2, P3))
    member.network.pending_join = None

    async def join_again() -> bytes:
        return given(P0, P1, P2, P3)

    coordinator._do_join_and_sync_async = join_again
    run(coordinator.join_group_async(timeout_ms=50))
    taken = member.subscription.assigned_partitions() == {P0, P1, P2, P3}
    assert taken == needed
    return taken


def test_the_library_drops_a_join_that_a_short_poll_has_interrupted() -> None:
    assert not takes_the_assignment_after_an_interrupted_join(ConsumerCoordinator)


def test_our_member_completes_a_join_that_a_short_poll_has_interrupted() -> None:
    assert takes_the_assignment_after_an_interrupted_join(FixedCoordinator)


# -- fault 4: put out of the group while joining -----------------------------------------------------------------------


def events_when_put_out_while_joining(kind: type[ConsumerCoordinator]) -> list[str]:
    member = Member(kind, owned={P0, P1})
    coordinator = member.coordinator
    coordinator.request_rejoin()
    attempts = iter([UnknownMemberIdError(), given(P0, P1)])

    async def join_and_sync() -> bytes:
        attempt = next(attempts)
        if isinstance(attempt, Exception):
            coordinator.reset_generation()  # as the handlers of both answers do
            raise attempt
        coordinator._generation = Generation(9, "member-2", "cooperative-sticky")
        return attempt

    coordinator._do_join_and_sync_async = join_and_sync
    assert run(coordinator.join_group_async()) is True
    return [event for event, _ in member.events]


def test_the_library_keeps_its_partitions_when_it_was_put_out_while_joining() -> None:
    assert "on_partitions_lost" not in events_when_put_out_while_joining(ConsumerCoordinator)


def test_our_member_loses_its_partitions_when_it_was_put_out_while_joining() -> None:
    assert events_when_put_out_while_joining(FixedCoordinator) == ["on_partitions_lost", "on_partitions_assigned"]


# -- fault 5: committed offsets of long ago ----------------------------------------------------------------------------


def committed_offset_after_a_return(kind: type[ConsumerCoordinator]) -> int:
    """A fetch of committed offsets outlives its poll; the partition goes, moves on to 90, and comes back."""
    member = Member(kind, owned={P0})
    coordinator = member.coordinator
    stale: Future = Future()
    coordinator._offset_fetch_futures[frozenset([P0])] = stale
    stale.success({P0: OffsetAndMetadata(10, "", -1)})
    run(coordinator._on_join_complete_async(6, "member-1", "cooperative-sticky", given()))
    run(coordinator._on_join_complete_async(7, "member-1", "cooperative-sticky", given(P0)))

    async def ask_the_broker(partitions: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        return {P0: OffsetAndMetadata(90, "", -1)}

    coordinator._send_offset_fetch_request = ask_the_broker
    return int(run(coordinator.fetch_committed_offsets_async({P0}))[P0].offset)


def test_the_library_answers_with_committed_offsets_of_long_ago() -> None:
    assert committed_offset_after_a_return(ConsumerCoordinator) == 10


def test_our_member_asks_for_the_committed_offsets_of_now() -> None:
    assert committed_offset_after_a_return(FixedCoordinator) == 90


# -- fault 6: fetched records of a paused partition --------------------------------------------------------------------


class Drained:
    """A batch that was read to its end."""

    def __bool__(self) -> bool:
        return False


def parked_records_taken_up(fixed: bool) -> bool:
    subscription = SubscriptionState("earliest")
    subscription.assign_from_user([P0, P1])
    manager = SimpleNamespace(_net=None, broker_version=(4, 1))
    fetcher = Fetcher(SimpleNamespace(_manager=manager), subscription)
    fetcher._next_partition_records = Drained()
    parked = Drained()
    fetcher._paused_partition_records[P1] = parked  # and P1 is no longer paused
    if fixed:
        consumer = FixedConsumer.__new__(FixedConsumer)
        consumer._fetcher = fetcher
        consumer.unpark_fetched()
    fetcher.fetched_records(1)
    return P1 not in fetcher._paused_partition_records


def test_the_library_leaves_what_was_fetched_of_a_paused_partition_behind_a_drained_batch() -> None:
    assert not parked_records_taken_up(fixed=False)


def test_ours_takes_up_what_was_fetched_of_a_paused_partition() -> None:
    assert parked_records_taken_up(fixed=True)


# -- fault 7: nobody looks for new partitions --------------------------------------------------------------------------


def rejoins_for_new_partitions(kind: type[ConsumerCoordinator]) -> bool:
    """A member that does not know that it leads the group, as after the restart of a static one."""
    member = Member(kind, owned={P0, P1})
    coordinator = member.coordinator
    coordinator._metadata_snapshot = {TOPIC: {0, 1}}
    assert not coordinator.need_rejoin()
    coordinator._metadata_snapshot = {TOPIC: {0, 1, 2}}
    return bool(coordinator.need_rejoin())


def test_the_library_looks_for_new_partitions_only_as_the_leader() -> None:
    assert not rejoins_for_new_partitions(ConsumerCoordinator)


def test_each_of_our_members_looks_for_new_partitions() -> None:
    assert rejoins_for_new_partitions(FixedCoordinator)


# -- fault 8: a static member whose place was taken --------------------------------------------------------------------


def polls_on_after_its_place_was_taken(kind: type[ConsumerCoordinator]) -> bool:
    coordinator = Member(kind, owned={P0, P1}).coordinator
    coordinator.coordinator_unknown = lambda: False
    coordinator._heartbeat_enabled = True
    coordinator._manager.send = _fenced
    coordinator.ensure_coordinator_ready = lambda timeout_ms: True
    run(coordinator._do_heartbeat())
    try:
        return bool(coordinator.poll(timeout_ms=0))
    except FencedInstanceIdError:
        return False


async def _fenced(request: object, node_id: object) -> Any:
    return SimpleNamespace(error_code=FencedInstanceIdError.errno)


def test_the_library_polls_on_after_another_process_took_its_place() -> None:
    assert polls_on_after_its_place_was_taken(ConsumerCoordinator)


def test_our_member_ends_after_another_process_took_its_place() -> None:
    assert not polls_on_after_its_place_was_taken(FixedCoordinator)


def test_a_static_member_that_is_told_to_stop_leaves_the_group() -> None:
    coordinator = Member(FixedCoordinator, owned={P0}).coordinator
    coordinator.config["group_instance_id"] = "worker-1"
    assert not coordinator.is_dynamic_member()
    left: list[bool] = []
    coordinator.maybe_leave_group = lambda **_: left.append(coordinator.is_dynamic_member())
    coordinator._net.run = run_function
    coordinator._cluster.remove_listener = lambda _: None
    coordinator.close(autocommit=False, timeout_ms=1000)
    assert left == [True]


def run_function(function: Any, *args: Any) -> Any:
    return run(function(*args))


def test_topics_whose_partitions_are_not_known_yet_are_no_reason_to_rejoin() -> None:
    coordinator = Member(FixedCoordinator, owned=()).coordinator
    coordinator._metadata_snapshot = {TOPIC: set()}
    assert not coordinator.need_rejoin()
    coordinator._metadata_snapshot = {TOPIC: {0, 1}}
    assert not coordinator.need_rejoin()


def test_closing_a_consumer_logs_no_error_but_a_failed_refresh_does(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("kafka.cluster")
    library.error("Metadata refresh: failed %s", Cancelled())
    library.error("Metadata refresh: failed %s", KafkaTimeoutError())
    assert [record.getMessage() for record in caplog.records] == ["Metadata refresh: failed KafkaTimeoutError"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (ConsumerCoordinator, ("need_rejoin", "reset_generation", "_on_join_complete_async", "stable")),
        (TransactionManager, ("_complete_transaction",)),
        (CooperativeStickyAssignor, ("metadata", "assign", "parse_member_metadata")),
    ],
)
def test_the_methods_that_we_replace_are_still_there(part: type, names: tuple[str, ...]) -> None:
    assert [name for name in names if not hasattr(part, name)] == []
