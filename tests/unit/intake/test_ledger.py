"""The ledger under random histories: it never commits past an unfinished record and never loses one."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.intake.ledger import Batch, OffsetLedger, Ticket
from worker.intake.log import Partition

A, B = Partition("images", 0), Partition("images", 1)
Written = tuple[Partition, int]


class LedgerOverALog(RuleBasedStateMachine):
    """A log of two partitions with gaps, a group's committed offsets and outputs, and a member that may crash.

    The model commits as a transaction does: outputs and offsets together, or not at all.
    """

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=40, max_size=40))
    def a_log(self, gaps: list[int]) -> None:
        self.log: dict[Partition, list[int]] = {A: [], B: []}
        for partition in (A, B):
            offset = 0
            for gap in gaps:
                self.log[partition].append(offset)
                offset += gap
        self.committed: dict[Partition, int] = {A: 0, B: 0}
        self.written: list[Written] = []
        self.void: list[Ticket] = []
        self._start()

    def _start(self) -> None:
        self.ledger: OffsetLedger[Written] = OffsetLedger()
        self.position: dict[Partition, int] = {}
        self.open: list[Ticket] = []
        self.taken: Batch[Written] | None = None

    @rule(partition=st.sampled_from([A, B]))
    def assign(self, partition: Partition) -> None:
        if partition not in self.position:
            self.ledger.assign([partition])
            self.position[partition] = self.committed[partition]

    @rule(partition=st.sampled_from([A, B]), count=st.integers(1, 5))
    def receive(self, partition: Partition, count: int) -> None:
        if partition not in self.position:
            return
        for offset in [o for o in self.log[partition] if o >= self.position[partition]][:count]:
            self.open.append(self.ledger.receive(partition, offset, size=10))
            self.position[partition] = offset + 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        assert self.ledger.finish(ticket, ((ticket.partition, ticket.offset),), size=3)
        assert not self.ledger.finish(ticket, ((ticket.partition, -1),)), "a record is finished once"

    @rule(limit=st.none() | st.integers(1, 4))
    def take(self, limit: int | None) -> None:
        if self.taken is None:
            self.taken = self.ledger.take(limit)

    @precondition(lambda self: self.taken is not None)
    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        batch, self.taken = self.taken, None
        assert batch is not None
        still_ours = all(p in self.position and self._epoch(p) == e for p, e in batch.epochs.items())
        if succeeds and still_ours:  # a real broker fences the rest by generation
            self.written.extend(batch.outputs)
            self.committed.update(batch.offsets)
            self.ledger.settle(batch)

    def _epoch(self, partition: Partition) -> int:
        return self.ledger._lanes[partition].epoch

    @rule(partition=st.sampled_from([A, B]))
    def revoke(self, partition: Partition) -> None:
        self.ledger.drop([partition])
        self.position.pop(partition, None)
        self.void += [t for t in self.open if t.partition == partition]
        self.open = [t for t in self.open if t.partition != partition]

    @precondition(lambda self: self.void)
    @rule()
    def finish_late(self) -> None:
        ticket = self.void.pop()
        assert not self.ledger.is_current(ticket)
        assert not self.ledger.finish(ticket, ((ticket.partition, ticket.offset),))

    @rule()
    def crash(self) -> None:
        self._start()
        self.void = []

    @invariant()
    def each_output_once_and_none_missing(self) -> None:
        if not hasattr(self, "written"):
            return
        assert len(self.written) == len(set(self.written))
        for partition in (A, B):
            done = {o for p, o in self.written if p == partition}
            assert done == {o for o in self.log[partition] if o < self.committed[partition]}

    @invariant()
    def never_past_an_unfinished_record(self) -> None:
        if not hasattr(self, "open"):
            return
        batch = self.ledger.take()
        for ticket in self.open:
            if batch is not None and ticket.partition in batch.offsets:
                assert ticket.offset >= batch.offsets[ticket.partition]
            assert ticket.offset >= self.committed[ticket.partition]

    @invariant()
    def counts_add_up(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.held_bytes == 3 * self.ledger.held + 7 * len(self.open)
        assert self.ledger.held == sum(self.ledger.held_in(p) for p in (A, B))


TestLedgerOverALog = LedgerOverALog.TestCase
TestLedgerOverALog.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), max_size=5),  # records that finish, by partition
            st.booleans(),  # whether the commit succeeds
        ),
        max_size=60,
    ),
    limit=st.integers(1, 5),
)
def test_no_partition_is_settled_twice_before_another_that_waits(
    steps: list[tuple[list[tuple[int, int]], bool]], limit: int
) -> None:
    """Records finish faster than slow commits take them; still each partition's turn comes."""
    partitions = [Partition("images", number) for number in range(5)]
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.assign(partitions)
    next_offset = dict.fromkeys(partitions, 0)
    settled_while_waiting: dict[Partition, Counter[Partition]] = {}
    for finished, succeeds in steps:
        for number, count in finished:
            partition = partitions[number]
            for _ in range(count):
                ledger.finish(ledger.receive(partition, next_offset[partition]), ("output",))
                next_offset[partition] += 1
            settled_while_waiting.setdefault(partition, Counter())
        batch = ledger.take(limit)
        assert (batch is None) == (ledger.held == 0)
        if batch is None or not succeeds:
            continue
        assert batch.records <= limit
        ledger.settle(batch)
        for waiting, settled in settled_while_waiting.items():
            if waiting not in batch.offsets:
                settled.update(batch.offsets.keys())
                assert max(settled.values()) == 1, f"{waiting} waits while {settled} were settled"
        for partition in batch.offsets:
            settled_while_waiting.pop(partition)
            if ledger.held_in(partition):
                settled_while_waiting[partition] = Counter()


def test_an_offset_that_goes_backwards_is_refused() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.assign([A])
    ledger.receive(A, 5)
    with pytest.raises(ValueError, match="offset 5 came after 5"):
        ledger.receive(A, 5)


def test_a_record_without_outputs_still_moves_the_frontier() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.assign([A])
    ledger.finish(ledger.receive(A, 7), ())
    batch = ledger.take()
    assert batch is not None
    assert batch.offsets == {A: 8}
    assert batch.outputs == ()
