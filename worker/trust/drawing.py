"""Which passed images are audited."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from schemas import AuditDraw, AuditPlan, AuditStratum, Verdict

EVERYTHING: Final = "all"
"""The one stratum of a plan that draws evenly."""


def uniform(share: float) -> tuple[AuditStratum, ...]:
    """The strata of a plan that draws every passed image with the same probability."""
    return (AuditStratum(name=EVERYTHING, probability=share),)


def draw_point(event_id: str | bytes) -> float:
    """A number in 0..1, evenly distributed over event ids and always the same for one event."""
    key = event_id.encode() if isinstance(event_id, str) else event_id
    return int.from_bytes(hashlib.sha256(b"sluice.audit\0" + key).digest()[:8], "big") / 2.0**64


class AuditDraws:
    """Draws passed images by plans.

    A draw depends only on the event id, the quality, the time of the verdict and the plans, so everybody who knows the
    plans draws the same images. `share` is the probability before the first plan. Of plans that begin at the same time,
    the last one given counts.
    """

    def __init__(self, plans: Iterable[AuditPlan], share: float) -> None:
        by_start = {plan.effective_from: plan for plan in plans}
        self._starts = sorted(by_start)
        self._strata = [uniform(share), *(by_start[start].strata for start in self._starts)]
        self._greatest = max(stratum.probability for strata in self._strata for stratum in strata)

    def may_draw(self, event_id: str | bytes) -> bool:
        """False where no verdict on this event can be drawn, whatever is in it. Cheap."""
        return draw_point(event_id) < self._greatest

    def draw(self, verdict: Verdict) -> AuditDraw | None:
        """How the image was drawn; None when it was not, or cannot be audited."""
        found = self.chance(verdict)
        return found if found is not None and draw_point(verdict.event_id) < found.probability else None

    def chance(self, verdict: Verdict) -> AuditDraw | None:
        """The stratum of a verdict and its probability of being drawn. None where that is 0: the image did not pass, is
        in no plan, or came within its event, so that nobody can look at it again."""
        if verdict.route.action != "pass" or verdict.image is None:
            return None
        strata = self.strata(verdict.judged_at)
        quality = verdict.scores.quality if verdict.scores is not None else 0.0
        stratum = next(each for each in strata if each.below is None or quality < each.below)
        if stratum.probability == 0:
            return None
        return AuditDraw(stratum=stratum.name, probability=stratum.probability)

    def strata(self, at: datetime) -> tuple[AuditStratum, ...]:
        """Those of the plan in force at that time."""
        return self._strata[bisect_right(self._starts, at)]

    def smallest(self, at: datetime) -> float | None:
        """The smallest probability above 0 in the plan that is in force at that time; None where nothing is drawn."""
        return min((each.probability for each in self.strata(at) if each.probability > 0), default=None)
