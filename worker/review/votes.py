"""The resolution of votes: n of m, with a rule for ties."""

from collections.abc import Sequence

from schemas import Decision, Resolution, Vote
from worker.settings import QueueSettings


def settle(votes: Sequence[Vote], rules: QueueSettings) -> Resolution | None:
    """The outcome of `rules.agree` equal votes; `rules.tie` as soon as the votes that are left of `rules.votes` cannot
    make so many equal; None while they can."""
    for vote in ("approve", "reject"):
        if votes.count(vote) >= rules.agree:
            return vote
    left = rules.votes - len(votes)
    within_reach = max(votes.count("approve"), votes.count("reject")) + left >= rules.agree
    return None if left > 0 and within_reach else rules.tie


def resolution_of_test(made: Decision, rules: QueueSettings) -> Resolution | None:
    """The resolution that this vote would have on an ordinary item without other votes."""
    return settle([made.outcome], rules) if made.outcome == "approve" or made.outcome == "reject" else None
