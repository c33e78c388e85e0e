"""The topics that a worker cannot do without, for drills, benchmarks and tests that make topics of their own."""

from typing import Final

WORKER_TOPICS: Final = (
    "images",
    "verdicts",
    "review",
    "dead",
    "retry_1",
    "retry_2",
    "retry_3",
    "surplus",
    "surplus_long",
)
"""By their keys in the section `kafka.topics` of the settings."""
