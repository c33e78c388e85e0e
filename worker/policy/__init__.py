"""From scores to a route: ordered rules in CEL, first match wins."""

from worker.policy.errors import PolicyError
from worker.policy.loading import load_policy, parse_policy
from worker.policy.policy import Policy

__all__ = ["Policy", "PolicyError", "load_policy", "parse_policy"]
