"""Whatever happens to the members of a group, no partition is given to one while another owns it."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition

from worker.intake.kafka_python_fixes import FixedAssignor

TOPIC = "images"
PARTITIONS = 8
ALL = frozenset(TopicPartition(TOPIC, number) for number in range(PARTITIONS))
NAMES = "abcd"


class Cluster:
    def topics(self) -> set[str]:
        return {TOPIC}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))


class Group:
    """What each member owns, and what it claims to own when it joins; they differ where a member runs the library
    without our fix and was put out of the group."""

    def __init__(self) -> None:
        self.owned: dict[str, set[TopicPartition]] = {}
        self.claimed: dict[str, set[TopicPartition]] = {}

    def join(self, name: str) -> None:
        self.owned.setdefault(name, set())
        self.claimed.setdefault(name, set())

    def leave(self, name: str) -> None:
        self.owned.pop(name, None)
        self.claimed.pop(name, None)

    def freeze(self, name: str, *, claims_on: bool) -> None:
        """The group puts it out; it may join again later."""
        if name in self.owned:
            del self.owned[name]
            if not claims_on:
                self.claimed[name] = set()

    def rebalance(self, order: list[str]) -> None:
        before = {name: set(owned) for name, owned in self.owned.items()}
        present = [name for name in order if name in self.owned]
        if not present:
            return
        assigned = FixedAssignor().assign(Cluster(), [self._request(name) for name in present])
        for name in present:
            given_to = set(assigned[name].partitions())
            for other, owned in before.items():
                assert other == name or not given_to & owned, f"{name} is given what {other} owns"
            self.owned[name] = self.claimed[name] = given_to

    def _request(self, name: str) -> Any:
        assignor = FixedAssignor()
        assignor.owned = lambda: self.claimed[name]
        return SimpleNamespace(member_id=name, metadata=assignor.metadata([TOPIC]))


STEPS = st.tuples(
    st.sampled_from(["join", "join", "leave", "freeze", "freeze without our fix"]),
    st.sampled_from(NAMES),
    st.permutations(NAMES),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=20), st.permutations(NAMES))
def test_no_partition_ever_has_two_owners_and_each_gets_one(
    steps: list[tuple[str, str, list[str]]], order: list[str]
) -> None:
    group = Group()
    group.join("a")
    group.rebalance(order)
    for step, name, next_order in steps:
        if step == "join":
            group.join(name)
        elif step == "leave":
            group.leave(name)
        else:
            group.freeze(name, claims_on=step == "freeze without our fix")
        group.rebalance(next_order)
    group.join("a")
    for _ in range(4):  # a dispute, a move, and one more that changes nothing
        group.rebalance(order)
    owned = [partition for partitions in group.owned.values() for partition in partitions]
    assert sorted(owned) == sorted(ALL)
