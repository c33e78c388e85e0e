"""A model repository in S3 or a compatible store."""

import botocore.exceptions

from worker.s3_client import make_s3_client
from worker.scoring.stores import RepositoryError, conflict
from worker.settings import S3Settings

_CONFLICTS = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict", "404", "NoSuchKey"})
"""S3's error codes for a failed condition or a missing object."""


class S3Store:
    """Objects below a prefix. Credentials are found by boto3."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = make_s3_client(settings, connect_seconds=5, read_seconds=60, attempts=4)

    def where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def read(self, name: str) -> bytes | None:
        try:
            with self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"] as body:
                data: bytes = body.read()
                return data
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return None
            raise self._failed(name, error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise self._failed(name, error) from error

    def write(self, name: str, data: bytes) -> None:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise self._failed(name, error) from error

    def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
        key = self._prefix + name
        try:
            condition = {"IfNoneMatch": "*"}
            if seen is not None:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
                with answer["Body"] as body:
                    if body.read() != seen:
                        raise conflict(self.where(name))
                condition = {"IfMatch": answer["ETag"]}
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **condition)
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") in _CONFLICTS:
                raise conflict(self.where(name)) from None
            raise self._failed(name, error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise self._failed(name, error) from error

    def names(self, prefix: str = "") -> list[str]:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise self._failed(prefix, error) from error
        return sorted(key[len(self._prefix) :] for key in keys)

    def delete(self, name: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> RepositoryError:
        return RepositoryError(f"{self.where(name)}: {error}")
