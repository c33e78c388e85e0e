"""The newest verdicts, for programs that ask now and then. Whoever needs each one reads the topic."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from schemas import HttpReference, Name, Verdict
from worker.review.http.api_access import VerdictReader
from worker.review.http.app_context import Context
from worker.review.http.redaction import redacted
from worker.review.http.serialized_route import SerializedRoute

router = APIRouter(tags=["verdicts"], route_class=SerializedRoute)

VERDICTS_AT_ONCE = 1000


class VerdictFilter(BaseModel):
    """What all given conditions hold for. `since` is inclusive, `until` is not; both are times of judgement."""

    event_id: Annotated[str, Field(max_length=512)] | None = None
    content_hash: Annotated[str, Field(max_length=128)] | None = None
    tenant: Name | None = None
    action: Literal["pass", "review", "reject"] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=VERDICTS_AT_ONCE)] = 100

    def holds(self, verdict: Verdict) -> bool:
        return (
            (self.event_id is None or verdict.event_id == self.event_id)
            and (self.content_hash is None or verdict.content_hash == self.content_hash)
            and (self.tenant is None or verdict.tenant == self.tenant)
            and (self.action is None or verdict.route.action == self.action)
            and (self.since is None or verdict.judged_at >= self.since)
            and (self.until is None or verdict.judged_at < self.until)
        )


class VerdictsOut(BaseModel):
    """At most `limit` of the `found` verdicts, newest first. The filter looked at `looked_at`; the oldest of these was
    judged at `oldest`."""

    verdicts: list[Verdict]
    found: int
    looked_at: int
    oldest: datetime | None


@router.get("/v1/verdicts")
def verdicts(_reader: VerdictReader, context: Context, wanted: Annotated[VerdictFilter, Query()]) -> VerdictsOut:
    """Among the newest 10,000 verdicts of the topic. An answer may be 20 seconds old."""
    newest = context.past_verdicts.newest()
    found = [verdict for verdict in newest if wanted.holds(verdict)]
    return VerdictsOut(
        verdicts=[_shown(verdict) for verdict in reversed(found[-wanted.limit :])],
        found=len(found),
        looked_at=len(newest),
        oldest=newest[0].judged_at if newest else None,
    )


def _shown(verdict: Verdict) -> Verdict:
    """Without what an image's address may carry to open it."""
    if not isinstance(verdict.image, HttpReference):
        return verdict
    image = verdict.image.model_copy(update={"url": redacted(verdict.image.url)})
    return verdict.model_copy(update={"image": image})
