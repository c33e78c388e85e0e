"""Who may commit: only a member that is in the group now, under the name that the loop knows."""

from types import SimpleNamespace

import pytest
from kafka.structs import ConsumerGroupMetadata

from worker.intake.kafka_output import KafkaOutput
from worker.intake.log import Fenced, Output, Partition

OUTPUTS = [Output("verdicts", b"v")]
OFFSETS = {Partition("images", 0): 1}


class Producer:
    def __init__(self) -> None:
        self.committed = 0

    def send_in_transaction(self, *_: object) -> None:
        self.committed += 1


def committing(known_as: str | None, group: ConsumerGroupMetadata) -> int:
    """How many transactions a commit makes."""
    output = KafkaOutput.__new__(KafkaOutput)
    output._consumer = SimpleNamespace(group_metadata=lambda: group)
    output._transactional = True
    output._note = lambda _: ""
    producer = Producer()
    output._producer = producer  # type: ignore[assignment]
    output.member_id = known_as
    output.commit(OUTPUTS, OFFSETS)
    return producer.committed


def test_a_member_of_the_group_commits() -> None:
    assert committing("m1", ConsumerGroupMetadata("g", 3, "m1", None)) == 1


@pytest.mark.parametrize(
    ("known_as", "generation", "member_id"),
    [
        pytest.param("m1", 4, "m2", id="it has joined again under another name"),
        pytest.param(None, 4, "m2", id="its partitions were lost"),
        pytest.param("m1", -1, "m1", id="the group went on without it"),
        # The broker takes transactional offsets without a member and a generation from anybody.
        pytest.param("", -1, "", id="it was put out while partitions were being assigned"),
    ],
)
def test_who_was_put_out_of_the_group_cannot_commit(known_as: str | None, generation: int, member_id: str) -> None:
    with pytest.raises(Fenced):
        committing(known_as, ConsumerGroupMetadata("g", generation, member_id, None))
