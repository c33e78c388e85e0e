"""What the pipeline makes of one event."""

from collections.abc import Mapping
from typing import NamedTuple

from schemas import Failure, Provenance, Route, Scores, ShadowRoute
from worker.cache.values import NO_FEATURES
from worker.policy.overload import Overloaded


class Judgement(NamedTuple):
    """Where an event goes, and why. With a `failure` it could not be judged, and the route is the policy's for that."""

    route: Route
    policy: str
    """The digest of the policy that decided."""
    scores: Scores | None
    failure: Failure | None = None
    shadow: tuple[ShadowRoute, ...] = ()
    features: Mapping[str, bytes] = NO_FEATURES
    """What the scores came from (float16 little-endian, by tower), where a person will see the event."""
    cached: bool = False
    retriable: bool = False
    """Of a failure: the cause may pass, so the same event may be judged later."""
    provenance: Provenance | None = None
    """None where it was not read."""
    overloaded: Overloaded = ()
    """Review queues over their capacity, as far as it was known."""

    @property
    def needs_features(self) -> bool:
        """A review item is written for it, which carries them."""
        return self.failure is None and self.route.action == "review"
