"""The desk in numbers, for leads."""

from typing import Annotated

from fastapi import APIRouter, Query

from worker.review.http.answers import StatisticsOut
from worker.review.http.answers import statistics as shown
from worker.review.http.door import Lead, TheDoor

router = APIRouter(tags=["statistics"])


@router.get("/v1/statistics")
def statistics(_session: Lead, door: TheDoor, hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24) -> StatisticsOut:
    return shown(door.desk.statistics(hours=hours))
