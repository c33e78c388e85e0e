"""The items of audited images, and the interval of a share."""

import math

from schemas import AuditDraw, ReviewItem, Verdict
from worker.review.answers import Share

AUDIT_QUEUE = "audit"

_Z = 1.959964
"""The normal quantile of 97.5 %."""


def audit_item(verdict: Verdict, draw: AuditDraw) -> ReviewItem:
    """The item by which a passed image is audited that was drawn so."""
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
        audit=draw,
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
