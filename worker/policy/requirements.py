"""What a policy needs of the settings."""

from typing import Final, Literal

from worker.policy.errors import PolicyError
from worker.policy.policy import Policy

ProvenanceSetting = Literal["off", "text", "c2pa"]
"""`images.provenance`: what is read of each image; each includes what stands before it."""

_ORDER: Final[tuple[ProvenanceSetting, ...]] = ("off", "text", "c2pa")


def needed_provenance(policy: Policy) -> ProvenanceSetting:
    """The least setting of `images.provenance` under which the fields that the policy reads have their values."""
    names = {field.name for field in policy.reads if field.variable == "provenance"}
    if any(name.startswith("c2pa") for name in names):
        return "c2pa"
    return "text" if names else "off"


def require_provenance(policy: Policy, setting: ProvenanceSetting, address: str) -> None:
    """Raises PolicyError where the policy reads what is not read of images: its rules would never hold, in silence."""
    needed = needed_provenance(policy)
    if _ORDER.index(needed) <= _ORDER.index(setting):
        return
    names = sorted(str(field) for field in policy.reads if field.variable == "provenance")
    if needed == "c2pa":
        names = [name for name in names if name.startswith("provenance.c2pa")]
    raise PolicyError(
        f"{address}: it reads {', '.join(names)}, and images.provenance is {setting}; set it to {needed}, or change "
        "the policy"
    )
