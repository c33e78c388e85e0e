"""The desk in numbers, and the gate before it, for leads."""

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from worker.review.http.answers import StatisticsOut
from worker.review.http.answers import statistics as shown
from worker.review.http.api_access import StatisticsReader
from worker.review.http.app_context import Context
from worker.review.intake_numbers import HOUR

router = APIRouter(tags=["statistics"])

Hours = Annotated[int, Query(ge=1, le=24 * 31)]


class IntakeHourOut(BaseModel):
    """`events` is absent where the topic's records of that hour are kept no more."""

    hour: datetime
    events: int | None


class IntakeOut(BaseModel):
    """Events that came to the gate, and about how many wait for their verdict, in whichever topic."""

    hours: list[IntakeHourOut]
    behind: int


@router.get("/v1/statistics")
def statistics(_session: StatisticsReader, context: Context, hours: Hours = 24) -> StatisticsOut:
    return shown(context.desk.statistics(hours=hours))


@router.get("/v1/intake")
def intake(_session: StatisticsReader, context: Context, hours: Hours = 24) -> IntakeOut:
    """The last so many hours, the present one among them."""
    present = int(time.time()) // HOUR * HOUR
    starts = [present - HOUR * back for back in reversed(range(hours))]
    numbers = context.intake.numbers(starts)
    return IntakeOut(
        hours=[
            IntakeHourOut(hour=datetime.fromtimestamp(start, UTC), events=events)
            for start, events in zip(starts, numbers.events, strict=True)
        ],
        behind=numbers.behind,
    )
