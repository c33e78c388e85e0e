"""The audit sample: which images that passed are reviewed anyway, and the interval of the share that was bad."""

import hashlib
import math

from schemas import ReviewItem, Verdict
from worker.review.answers import Share

AUDIT_QUEUE = "audit"

_Z = 1.959964
"""The normal quantile of 97.5 %."""


def is_sampled(event_id: str | bytes, share: float) -> bool:
    """Whether an event belongs to the audit sample: about `share` of all do, the same ones each time and everywhere."""
    key = event_id.encode() if isinstance(event_id, str) else event_id
    point = int.from_bytes(hashlib.sha256(b"sluice.audit\0" + key).digest()[:8], "big")
    return point < share * 2**64


def audit_item(verdict: Verdict) -> ReviewItem | None:
    """The item by which a sampled verdict is audited; None where the image did not pass, or cannot be looked at because
    it came within its event, which the verdict does not repeat."""
    if verdict.route.action != "pass" or verdict.image is None:
        return None
    return ReviewItem(
        item_id=verdict.verdict_id,
        verdict_id=verdict.verdict_id,
        event_id=verdict.event_id,
        tenant=verdict.tenant,
        queue=AUDIT_QUEUE,
        priority=0,
        created_at=verdict.judged_at,
        image=verdict.image,
        content_hash=verdict.content_hash,
        generator=verdict.generator,
        provenance=verdict.provenance,
        scores=verdict.scores,
        labels=verdict.route.labels,
        rule=verdict.route.rule,
        model=verdict.model,
        policy=verdict.policy,
        source=verdict.source,
    )


def wilson(count: int, total: int) -> Share:
    """`count` of `total` with the Wilson score interval of the share (Wilson 1927), of 95 %. 0..1 without any.

    Raises ValueError when `count` is not within 0..`total`.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total}")
    if total == 0:
        return Share(0, 0, 0.0, 1.0)
    z, share = _Z, count / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    margin = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # at the ends the formula gives 0 and 1 but for rounding
    low = 0.0 if count == 0 else centre - margin
    high = 1.0 if count == total else centre + margin
    return Share(count, total, low, high)
