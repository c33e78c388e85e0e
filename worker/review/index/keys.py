"""Names of the index's keys. The braces keep them on one node of a Redis Cluster, as scripts and transactions need."""

from typing import Final

from worker.intake.log import Partition

PREFIX: Final = "sluice:{desk}:"
EVENTS: Final = f"{PREFIX}events"
"""The channel on which desks tell each other what happened."""
READY: Final = f"{PREFIX}ready"
"""There once the projector has read all that stood in the topics."""
POSITIONS: Final = f"{PREFIX}positions"
"""Hash: `topic|partition` → the next offset, and `generation` → who began to build this index."""
PROJECTOR: Final = f"{PREFIX}projector"
PROGRESS: Final = f"{PREFIX}progress"
"""Hash: how far the index is filled: `phase` (reading or filling), `done` and `total`. It expires."""
TOKEN: Final = f"{PREFIX}token"
QUEUES: Final = f"{PREFIX}queues"
CLOSED: Final = f"{PREFIX}closed"
"""Sorted set: settled items by when they were."""
SETTLED_AFTER: Final = f"{PREFIX}settled-after"
"""Hash: settled item → the seconds that it took."""
PANELS: Final = f"{PREFIX}votes-on"
"""Hash: settled item that several people judged → their votes, and what those came to."""
AUDIT_PLANNER: Final = f"{PREFIX}audit-planner"


def courier(webhook: str) -> str:
    """The lease on delivering to a webhook."""
    return f"{PREFIX}courier|{webhook}"


def delivered(webhook: str) -> str:
    """Hash: `topic|partition` → the next record for the webhook."""
    return f"{PREFIX}delivered|{webhook}"


def undelivered(webhook: str) -> str:
    """Sorted set: the ids of messages that the receiver did not take, by when; `…|entries` and `…|wanted` beside it."""
    return f"{PREFIX}undelivered|{webhook}"


def webhook_behind(webhook: str) -> str:
    """How many records of its topic the webhook has not had. It expires."""
    return f"{PREFIX}webhook-behind|{webhook}"


def position_field(partition: Partition) -> str:
    """A partition's field in a hash of positions."""
    return f"{partition.topic}|{partition.number}"


def item(item_id: str) -> str:
    """Hash: the item, its cluster, and its decisions by where they stand in the log."""
    return f"{PREFIX}item|{item_id}"


def excluded(item_id: str) -> str:
    """Set: reviewers who do not get the item."""
    return f"{PREFIX}out|{item_id}"


def skipped(queue: str, reviewer: str) -> str:
    """Sorted set: the queue's waiting items that the reviewer skipped and has not voted on since, by due time."""
    return f"{PREFIX}skipped|{queue}|{reviewer}"


def lane(name: str, queue: str, assignee: str = "") -> str:
    """Sorted set: the items that wait in a lane (open, assigned, escalated, held, gold) of a queue, by due time."""
    return f"{PREFIX}lane|{name}|{queue}|{assignee}"


def closed_to(lane_key: str, reviewer: str) -> str:
    """Sorted set: those items of a lane that the reviewer does not get, by due time."""
    return f"{lane_key}|closed|{reviewer}"


def waiting(queue: str) -> str:
    """Sorted set: the queue's open items by when they came."""
    return f"{PREFIX}waiting|{queue}"


def assigned(queue: str) -> str:
    """Set: the queue's open items that have an assignee."""
    return f"{PREFIX}assigned|{queue}"


def cluster(cluster_id: str) -> str:
    """Set: items that wait and are judged together."""
    return f"{PREFIX}cluster|{cluster_id}"


def job(cluster_id: str) -> str:
    """The token of the lease on a cluster; it expires with the lease."""
    return f"{PREFIX}job|{cluster_id}"


def lease(token: int) -> str:
    """Hash: who holds the lease, on which cluster and items. It expires."""
    return f"{PREFIX}lease|{token}"


def asked(reviewer: str, request_id: str) -> str:
    """Set: the tokens that a request for leases was granted, and whether it was withdrawn. It expires."""
    return f"{PREFIX}asked|{reviewer}|{request_id}"


def leased(queue: str) -> str:
    """Sorted set: leased items by when their lease ends, in milliseconds."""
    return f"{PREFIX}leased|{queue}"


def decided(decision_id: str) -> str:
    """Hash: item that an action covered → the action's id for it, while it may be repeated or undone."""
    return f"{PREFIX}decided|{decision_id}"


def hour(start: int) -> str:
    """Hash: what was done in the hour from `start` (seconds) on: `arrived` and `outcome|reviewer` → how often; `held`
    and `flip` count votes on images that the policy held back."""
    return f"{PREFIX}hour|{start}"


def gold(reviewer: str) -> str:
    """Hash: gold item → 1 or 0, whether the reviewer's answer was right."""
    return f"{PREFIX}gold|{reviewer}"


def turn(reviewer: str) -> str:
    """How many leases the reviewer has had; it chooses when a gold item comes."""
    return f"{PREFIX}turn|{reviewer}"
