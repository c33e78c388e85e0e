"""What people may do at the desk."""

from enum import StrEnum


class Role(StrEnum):
    """Each may do all that those before it may."""

    VIEWER = "viewer"
    """Looks at queues, items and their history."""
    REVIEWER = "reviewer"
    """Leases and decides."""
    LEAD = "lead"
    """Assigns, reopens, sees statistics, tries and saves policies."""
    ADMIN = "admin"
    """Invites and removes people."""

    def includes(self, other: "Role") -> bool:
        return _ORDER[self] >= _ORDER[other]


_ORDER = {role: rank for rank, role in enumerate(Role)}
