"""The images of a bucket, in the order of their keys."""

from collections.abc import Iterator
from typing import Any

import botocore.exceptions
from pydantic import ValidationError

from schemas import S3Reference
from worker.backfill.request import BackfillRequest
from worker.images.suffixes import is_image_key
from worker.intake.log import LogError
from worker.s3_client import make_s3_client
from worker.settings import S3Settings


def listed(request: BackfillRequest, s3: S3Settings, after_key: str) -> Iterator[S3Reference]:
    """The shard's images whose keys follow `after_key`, page by page. Raises LogError where the store does not list
    them."""
    client = make_s3_client(s3, connect_seconds=5, read_seconds=60, attempts=4)
    try:
        yield from _images(client, request, after_key)
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise LogError(f"{request.source} cannot be listed: {error}") from error


def _images(client: Any, request: BackfillRequest, after_key: str) -> Iterator[S3Reference]:
    after = {"StartAfter": after_key} if after_key else {}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=request.bucket, Prefix=request.prefix, **after)
    for page in pages:
        for found in page.get("Contents", ()):
            key = found["Key"]
            if is_image_key(key) and request.shard.has(key):
                try:
                    yield S3Reference(bucket=request.bucket, key=key, etag=found["ETag"].strip('"'))
                except ValidationError:  # a key longer than S3's own limit, of a store that only speaks like it
                    continue
