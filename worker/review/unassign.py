"""Returns the items of an assignee who may no longer decide to their queues."""

from typing import Any, Final

import redis

from worker.review.index import keys
from worker.review.index.index import Index
from worker.review.recorder import PendingDecision, Recorder

_AT_ONCE: Final = 100


def unassign(client: redis.Redis, index: Index, recorder: Recorder, assignee: str, actor: str) -> int:
    """Makes the open items that are assigned to `assignee` available to everybody; returns how many. Raises
    NotRecorded."""
    queues: Any = client.smembers(keys.QUEUES)
    names = sorted(queue.decode() for queue in queues)
    with client.pipeline(transaction=False) as pipeline:
        for queue in names:
            pipeline.zrange(keys.lane("assigned", queue, assignee), 0, -1)
        lanes = pipeline.execute()
    waiting = [item_id.decode() for lane in lanes for item_id in lane]
    done = 0
    for start in range(0, len(waiting), _AT_ONCE):
        steps = []
        for entry in index.entries(waiting[start : start + _AT_ONCE]).values():
            if entry.item is None or entry.lane != ("assigned", assignee):
                continue
            # Right behind what was done to the item last: whatever is done to it meanwhile stands, and this does not.
            decision = recorder.decision(
                entry.item, actor, "assign", entry.state.fence + 1, note=f"{assignee} may no longer decide here"
            )
            steps.append(PendingDecision(entry, entry.item, decision))
        recorder.commit(steps, actor, action="unassign", detail={"assignee": assignee})
        done += len(steps)
    return done
