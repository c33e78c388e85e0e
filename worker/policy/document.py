"""The policy file: `sluice.policy/1`."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, model_validator

from schemas import Name, Priority

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Scalar = StrictBool | StrictInt | Number | str
ConstantName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Condition = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

MAX_LABELS: Final = 32
"""Of a route; each verdict that takes it carries them all."""
MAX_QUEUES: Final = 100
"""With a capacity; a verdict names those that are over it."""


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
    when: Condition | None = None
    route: Destination


class FailureEntry(PolicySection):
    """Where images go that could not be judged; always to review."""

    queue: Name = "failures"
    priority: Priority | None = None


class OverloadDestination(Destination):
    """Where an overload rule sends an image that would have gone to review. Without `priority` it keeps the one that it
    had; `labels` are added to those that it had."""

    @model_validator(mode="after")
    def _never_passes(self) -> Self:
        if self.action == "pass":
            raise ValueError(
                "pass would let images through that nobody has looked at; use reject, or review with another queue"
            )
        return self


class OverloadEntry(PolicySection):
    """What happens to images that would go to a queue that is over its capacity.

    `delay`: nothing, they wait. `sample`: `share` of them go to the queue, the others take `route`. `widen`: those that
    meet the condition `when` take `route`.
    """

    mode: Literal["delay", "sample", "widen"] = "delay"
    share: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    when: Condition | None = None
    route: OverloadDestination | None = None

    @model_validator(mode="after")
    def _has_what_its_mode_needs(self) -> Self:
        needed = {"delay": (), "sample": ("share", "route"), "widen": ("when", "route")}[self.mode]
        for name in ("share", "when", "route"):
            if name in needed and getattr(self, name) is None:
                raise ValueError(f"mode {self.mode} needs {' and '.join(needed)}; {name} is missing")
            if name not in needed and getattr(self, name) is not None:
                raise ValueError(f"mode {self.mode} takes no {name}")
        return self


class CapacityEntry(PolicySection):
    """How much may wait in a queue: `open` items, the oldest for `oldest_minutes`. More is an overload."""

    open: Annotated[int, Field(strict=True, gt=0)] | None = None
    oldest_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.open is None and self.oldest_minutes is None:
            raise ValueError("needs open, oldest_minutes or both")
        return self


class QueueEntry(PolicySection):
    """The capacity of a queue's reviewers, and what happens when it is exceeded."""

    capacity: CapacityEntry
    overload: OverloadEntry = OverloadEntry()


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
    queues: Annotated[dict[Name, QueueEntry], Field(max_length=MAX_QUEUES)] = Field(default_factory=dict)
