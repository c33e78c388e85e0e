"""How passed images are drawn for the audit: `sluice.audit-plan/1`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Contract, Name, Timestamp


class AuditDraw(Contract):
    """How an image came to be audited: with this probability, as one of this stratum."""

    stratum: Name
    probability: Annotated[float, Field(gt=0, le=1)]


class AuditStratum(Contract):
    """Passed images with a quality below `below` that are in no stratum before this one; the last stratum has no limit.
    Each of them is drawn with `probability`."""

    name: Name
    below: float | None = None
    probability: Annotated[float, Field(ge=0, le=1)]


class AuditPlan(Contract):
    """The probabilities with which passed images are drawn, for those judged at `effective_from` or later, until the
    next plan. Plans are keyed by `effective_from`.

    `strata` are in rising order of quality. `uniform_share` and `budget_per_day` are the settings that it follows.
    """

    schema_: Literal["sluice.audit-plan/1"] = Field(default="sluice.audit-plan/1", alias="schema")
    effective_from: Timestamp
    made_at: Timestamp
    uniform_share: Annotated[float, Field(ge=0, le=1)]
    budget_per_day: Annotated[int, Field(gt=0)] | None = None
    strata: Annotated[tuple[AuditStratum, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _covers_all_qualities(self) -> "AuditPlan":
        limits = [stratum.below for stratum in self.strata]
        inner = [limit for limit in limits[:-1] if limit is not None]
        if limits[-1] is not None or len(inner) < len(limits) - 1 or inner != sorted(set(inner)):
            raise ValueError("strata must have rising limits, and only the last one none")
        return self
