"""The policies that a desk shows and saves: where they live, and who saved what is there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import redis
import structlog

from worker.policy.place import PolicyPlace
from worker.policy.requirements import ProvenanceSetting
from worker.policy.text import PolicyText

log = structlog.get_logger(__name__)

_PREFIX: Final = "sluice:desk:saved-policy:"
_KEPT_SECONDS: Final = 90 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Saved:
    """Who saved a text at a desk, and when."""

    by: str
    at: datetime


class Policies:
    """`live` is where the policy lives that workers judge by, `shadows` are those that they only ask.

    Who saved a text is remembered in Redis, for those who come to save another; the audit topic has it for good.
    """

    def __init__(
        self,
        live: PolicyPlace,
        shadows: Mapping[str, PolicyPlace],
        client: redis.Redis,
        clock: Callable[[], float],
        provenance: ProvenanceSetting,
    ) -> None:
        """`provenance`: what the workers read of images; the settings of desk and workers are the same."""
        self.live = live
        self.shadows = shadows
        self._redis = client
        self._clock = clock
        self.provenance = provenance

    def remember(self, text: PolicyText, by: str) -> None:
        value = json.dumps({"by": by, "at": self._clock()})
        try:
            self._redis.set(_PREFIX + text.digest, value, ex=_KEPT_SECONDS)
        except redis.RedisError as error:
            log.warning("policy_saver_forgotten", digest=text.digest, by=by, error=str(error))

    def saver(self, text: PolicyText) -> Saved | None:
        """None where the text was put there by other means, or long ago."""
        value: Any = self._redis.get(_PREFIX + text.digest)
        if value is None:
            return None
        known = json.loads(value)
        return Saved(known["by"], datetime.fromtimestamp(known["at"], UTC))
