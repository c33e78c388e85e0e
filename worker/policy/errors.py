"""Errors of loading, evaluating and saving a policy."""

from worker.policy.text import PolicyText


class PolicyError(Exception):
    """A policy cannot be used, or one of its rules cannot be evaluated for an event.

    When loading fails, each line of the message is one problem: file, line, the rule if there is one, and the reason.
    """


class PolicyReadOnly(PolicyError):
    """The policy cannot be saved here. The message says which setting or permission is missing."""


class PolicyConflict(PolicyError):
    """The policy changed after it was read. `present` is its current text."""

    def __init__(self, present: PolicyText) -> None:
        super().__init__("the policy was changed since you loaded it")
        self.present = present
