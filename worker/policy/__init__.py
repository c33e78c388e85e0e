"""From scores to a route: ordered rules in CEL, first match wins."""

from worker.light_imports import without_module

with without_module("cel.cli"):  # a read-eval-print loop on prompt_toolkit: 0.2 s of CPU time
    import cel  # noqa: F401

from worker.policy.errors import PolicyError
from worker.policy.loading import load_policy, parse_policy
from worker.policy.policy import Policy

__all__ = ["Policy", "PolicyError", "load_policy", "parse_policy"]
