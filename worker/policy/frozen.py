"""A policy that does not change while a run judges by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from worker.policy.loading import parse_policy
from worker.policy.place import ShippedPlace, place_of
from worker.policy.policy import Policy
from worker.settings import Settings


@contextmanager
def frozen_policy(settings: Settings, data: Path | None) -> Iterator[tuple[Settings, Policy]]:
    """The settings with a copy of the policy, and the policy: one that is saved meanwhile changes nothing.

    Raises PolicyError.
    """
    place = place_of(settings, data)
    found = place.read()
    policy = parse_policy(found.content, place.address)
    if isinstance(place, ShippedPlace) or found.shipped:
        yield settings.model_copy(update={"policy": None}), policy
        return
    with TemporaryDirectory(prefix="sluice-policy-") as folder:
        copy = Path(folder) / "policy.yaml"
        copy.write_bytes(found.content)
        yield settings.model_copy(update={"policy": copy}), policy
