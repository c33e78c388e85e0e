"""Lists the objects below an `s3://` prefix."""

from collections.abc import Iterator
from typing import Any

from schemas import S3Reference
from worker.cli.errors import CommandFailed
from worker.cli.sources import ListObjects
from worker.settings import Settings


def object_lister(settings: Settings, *, versions: bool = False) -> ListObjects:
    """Returns a function that lists a prefix page by page: each object with its ETag and, if asked for, its current
    version.

    The client is made when the first listing begins. A listing raises CommandFailed when the store refuses it.
    """

    def list_objects(bucket: str, prefix: str) -> Iterator[S3Reference]:
        from botocore.exceptions import BotoCoreError, ClientError  # only a listing needs them

        from worker.s3_client import make_s3_client

        try:
            client = make_s3_client(settings.s3, connect_seconds=5, read_seconds=60, attempts=4)
            yield from (_present_versions if versions else _objects)(client, bucket, prefix)
        except ClientError as error:
            said = error.response.get("Error", {})
            raise CommandFailed(f"s3://{bucket}/{prefix}: {said.get('Code')}: {said.get('Message')}") from error
        except BotoCoreError as error:
            raise CommandFailed(f"s3://{bucket}/{prefix}: {error}") from error

    return list_objects


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[S3Reference]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", ()):
            yield S3Reference(bucket=bucket, key=found["Key"], etag=found["ETag"].strip('"'))


def _present_versions(client: Any, bucket: str, prefix: str) -> Iterator[S3Reference]:
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Versions", ()):
            if found["IsLatest"]:
                # In a bucket without versioning the version is "null", which is not a version id.
                version = None if found["VersionId"] == "null" else found["VersionId"]
                etag = found["ETag"].strip('"')
                yield S3Reference(bucket=bucket, key=found["Key"], version_id=version, etag=etag)
