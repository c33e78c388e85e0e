"""Reloads the policies while the worker runs, so that the active ones are those that are stored."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.policy.errors import PolicyError
from worker.policy.loading import parse_policy
from worker.policy.place import PolicyPlace
from worker.policy.policy import Policy
from worker.policy.requirements import ProvenanceSetting, require_provenance
from worker.policy.text import PolicyText
from worker.supervision import Supervisor

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""How often the stored policies are read: a saved one is active everywhere after so long, plus the store's answer."""


@dataclass(frozen=True, slots=True)
class ActivePolicies:
    """The policies at one moment. `live` decides. `shadows`, by their names in the settings, are evaluated beside it,
    and only reported."""

    live: Policy
    shadows: Mapping[str, Policy] = field(default_factory=dict)

    @property
    def state_capacities(self) -> bool:
        """Whether one of them has an overload rule, so that the load of the review queues matters."""
        return bool(self.live.capacities) or any(policy.capacities for policy in self.shadows.values())


class PolicyWatch:
    """Reads each policy's place every few seconds.

    A text that is not a valid policy never replaces one: the last valid one stays active, and `troubles` reports it.
    The live policy must be valid at the start; an invalid shadow is left out until it is valid. Before `start`, only
    `look` changes anything.
    """

    def __init__(
        self, live: PolicyPlace, shadows: Mapping[str, PolicyPlace], *, provenance: ProvenanceSetting = "c2pa"
    ) -> None:
        """`provenance`: what is read of images; a policy that reads more is not valid. Raises PolicyError when the live
        policy cannot be used."""
        self._live = _Watched("live", live, provenance)
        self._shadows = {name: _Watched(name, place, provenance) for name, place in shadows.items()}
        self._live.look()
        if self._live.policy is None:
            raise PolicyError(self._live.trouble)
        for shadow in self._shadows.values():
            shadow.look()
        self._active = self._composed(self._live.policy)

    @property
    def active(self) -> ActivePolicies:
        """The same object as long as nothing has changed."""
        return self._active

    def troubles(self) -> tuple[str, ...]:
        """Why a stored policy is not the active one; empty when all are. From any thread."""
        watched = (self._live, *self._shadows.values())
        return tuple(f"{each.title}: {each.trouble.splitlines()[0]}" for each in watched if each.trouble)

    def look(self) -> None:
        """Reads the places again. Raises nothing."""
        changes = [each.look() for each in (self._live, *self._shadows.values())]
        if any(changes):
            self._active = self._composed(self._live.policy or self._active.live)

    def start(self, supervisor: Supervisor) -> None:
        """Logs the active policies, and looks every LOOK_SECONDS from now on, in a loop of the supervisor."""
        for each in (self._live, *self._shadows.values()):
            each.announce()
        supervisor.start("policy-watch", self._run)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(LOOK_SECONDS):
            self.look()

    def _composed(self, live: Policy) -> ActivePolicies:
        shadows = {name: each.policy for name, each in self._shadows.items() if each.policy is not None}
        return ActivePolicies(live, shadows)


class _Watched:
    """A place, and the last text there that was a policy. `trouble` is empty while all is well."""

    def __init__(self, name: str, place: PolicyPlace, provenance: ProvenanceSetting) -> None:
        self.title = "policy" if name == "live" else f"shadow policy {name}"
        self.policy: Policy | None = None
        self.trouble = ""
        self._place = place
        self._provenance = provenance
        self._seen: PolicyText | None = None
        self._fault = ""
        self._announced = False

    def announce(self) -> None:
        """What is first looked at is often looked at before there is a log."""
        self._announced = True
        if self.policy is not None:
            self._log_policy(self.policy)
        if self.trouble:
            self._log_trouble(self.trouble)

    def look(self) -> bool:
        """Whether the active policy changed."""
        before = self.policy
        try:
            text = self._place.read(self._seen)
            if text is not self._seen:
                self._seen = text
                self._read(text)
            self._tell(self._fault)
        except PolicyError as error:
            self._tell(str(error))
        except Exception as error:  # noqa: BLE001  # the watch must go on, whatever a store's client raises
            self._tell(f"{self._place.address}: {type(error).__name__}: {error}")
        return self.policy is not before

    def _read(self, text: PolicyText) -> None:
        try:
            policy = parse_policy(text.content, self._place.address)
            require_provenance(policy, self._provenance, self._place.address)
        except PolicyError as error:
            self._fault = str(error)
            return
        self._fault = ""
        if self.policy is None or self.policy.digest != policy.digest:
            self.policy = policy
            if self._announced:
                self._log_policy(policy)

    def _tell(self, trouble: str) -> None:
        """Once for each trouble, not each time it is met again."""
        if trouble and trouble != self.trouble and self._announced:
            self._log_trouble(trouble)
        self.trouble = trouble

    def _log_policy(self, policy: Policy) -> None:
        log.info("policy_in_force", policy=self.title, version=policy.version, digest=policy.digest)

    def _log_trouble(self, trouble: str) -> None:
        in_force = None if self.policy is None else self.policy.digest
        log.error("policy_refused", policy=self.title, error=trouble, in_force=in_force)
