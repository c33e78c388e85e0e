"""The wire contracts of Sluice. They import no other package of Sluice."""

from schemas.audit_plan import AuditDraw, AuditPlan, AuditStratum
from schemas.base import Base64Data, Contract, Digest, Identifier, Name, Priority, Timestamp
from schemas.dead_letter import DeadLetter, DeadLetterAction
from schemas.failure import Failure, FailureReason
from schemas.image_event import (
    FileReference,
    HttpReference,
    ImageEvent,
    ImageReference,
    InlineReference,
    S3Reference,
)
from schemas.provenance import NO_PROVENANCE, Provenance
from schemas.review import AuditEntry, Decision, Resolution, ReviewItem, Vote
from schemas.verdict import Route, RouteOverload, Scores, ShadowRoute, Source, Timings, Verdict

__all__ = [
    "NO_PROVENANCE",
    "AuditDraw",
    "AuditEntry",
    "AuditPlan",
    "AuditStratum",
    "Base64Data",
    "Contract",
    "DeadLetter",
    "DeadLetterAction",
    "Decision",
    "Digest",
    "Failure",
    "FailureReason",
    "FileReference",
    "HttpReference",
    "Identifier",
    "ImageEvent",
    "ImageReference",
    "InlineReference",
    "Name",
    "Priority",
    "Provenance",
    "Resolution",
    "ReviewItem",
    "Route",
    "RouteOverload",
    "S3Reference",
    "Scores",
    "ShadowRoute",
    "Source",
    "Timestamp",
    "Timings",
    "Verdict",
    "Vote",
]
