"""The policy file: `sluice.policy/1`."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, model_validator

from schemas import Name, Priority

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Scalar = StrictBool | StrictInt | Number | str
ConstantName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


MAX_LABELS: Final = 32
"""Of a route; each verdict that takes it carries them all."""


class PolicySection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Destination(PolicySection):
    """Where a rule sends an image. Without `priority` the event keeps its own."""

    action: Literal["pass", "review", "reject"]
    queue: Name | None = None
    priority: Priority | None = None
    labels: Annotated[tuple[Name, ...], Field(max_length=MAX_LABELS)] = ()

    @model_validator(mode="after")
    def _has_a_queue_for_review_only(self) -> Self:
        if self.action == "review" and self.queue is None:
            raise ValueError("action review needs a queue")
        if self.action != "review" and self.queue is not None:
            raise ValueError(f"action {self.action} takes no queue; only review does")
        return self


class RuleEntry(PolicySection):
    """A rule. Without `when` it takes every event that reaches it."""

    name: Name
    when: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    route: Destination


class FailureEntry(PolicySection):
    """Where images go that could not be judged; always to review."""

    queue: Name = "failures"
    priority: Priority | None = None


class TenantEntry(PolicySection):
    """What is different for one tenant: its rules come before the common ones, its constants replace theirs."""

    constants: dict[ConstantName, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    rules: tuple[RuleEntry, ...] = ()
    failures: FailureEntry | None = None


class PolicyDocument(PolicySection):
    """The whole file."""

    schema_: Literal["sluice.policy/1"] = Field(alias="schema")
    version: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    constants: dict[ConstantName, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    rules: Annotated[tuple[RuleEntry, ...], Field(min_length=1)]
    failures: FailureEntry = FailureEntry()
    tenants: dict[Name, TenantEntry] = Field(default_factory=dict)
