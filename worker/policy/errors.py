"""What can be wrong with a policy."""


class PolicyError(Exception):
    """A policy cannot be used, or one of its rules cannot be evaluated for an event.

    At loading each line of the message is a problem, beginning with file, line and, where it is one's fault, rule.
    """
