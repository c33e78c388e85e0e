"""What can be wrong with a policy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.policy.place import PolicyText


class PolicyError(Exception):
    """A policy cannot be used, or one of its rules cannot be evaluated for an event.

    At loading each line of the message is a problem, beginning with file, line and, where it is one's fault, rule.
    """


class PolicyReadOnly(PolicyError):
    """No policy can be saved there; the message says what to set or allow."""


class PolicyConflict(PolicyError):
    """The policy was changed since it was looked at. `present` is what stands there now."""

    def __init__(self, present: "PolicyText") -> None:
        super().__init__("the policy was changed since you loaded it")
        self.present = present
