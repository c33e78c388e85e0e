"""What a backfill judges, and how far it is."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from schemas import S3Reference


class Shard(NamedTuple):
    """One of `of` parts of a listing that are judged side by side. Each key belongs to one of them."""

    number: int
    of: int

    def has(self, key: str) -> bool:
        return self.of == 1 or crc32(key.encode()) % self.of == self.number


ALL = Shard(0, 1)


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """The images of `bucket` below `prefix`, judged by a model and a policy (digests)."""

    bucket: str
    prefix: str
    tenant: str
    model: str
    policy: str
    shard: Shard = ALL

    @property
    def run(self) -> str:
        """12 hexadecimal digits. The same request is the same run, which goes on where it stopped."""
        parts = [self.bucket, self.prefix, self.tenant, self.model, self.policy, self.shard.of]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def source(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def event_id(self, reference: S3Reference) -> str:
        """The same object has the same id in every run."""
        parts = "\0".join((self.bucket, reference.key, reference.etag or ""))
        return f"backfill-{hashlib.sha256(parts.encode()).hexdigest()[:20]}"

    def of_shards(self, count: int) -> Iterator["BackfillRequest"]:
        """The request in so many parts."""
        return (replace(self, shard=Shard(number, count)) for number in range(count))


class BackfillState(BaseModel):
    """How far a shard of a run is: everything up to `after_key` is judged and written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    source: str
    judged: int = 0
    failed: int = 0
    after_key: str = ""
    is_over: bool = False
