"""Where a model repository lies: a folder, or a prefix of an S3 bucket. Files by name, written whole or not at all."""

import os
import re
from pathlib import Path
from typing import Protocol

import botocore.exceptions

from worker.atomic_files import locked_folder, write_atomically
from worker.s3_client import make_s3_client
from worker.settings import S3Settings

_CONFLICTS = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict", "404", "NoSuchKey"})
"""What S3 answers when the object is not the one that the condition names, or not there."""

_S3_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]+)(?:/(?P<prefix>.*))?")


class RepositoryError(Exception):
    """A repository cannot be read or written. The message says what is wrong, where, and what to do."""


class StoreConflict(RepositoryError):
    """The file changed since it was read; nothing was written."""


class Store(Protocol):
    """Files by name (`mst-lite/1/manifest.json`). All methods raise RepositoryError for what the store does not do."""

    def where(self, name: str) -> str:
        """The file's address, for people."""

    def read(self, name: str) -> bytes | None:
        """The file's content; None where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Writes or replaces a file. Nobody ever reads half of it."""

    def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
        """Writes a file if its content is still `seen` (None: there is no file), as one atomic step.

        Raises StoreConflict when it is not.
        """

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files that begin with the prefix, sorted."""

    def delete(self, name: str) -> None:
        """Removes a file, if there is one."""


class FolderStore:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def where(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("read", name, error) from error

    def write(self, name: str, data: bytes) -> None:
        target = self.folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)
        except OSError as error:
            raise self._failed("written", name, error) from error

    def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
        try:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with locked_folder((self.folder / name).parent):
                if self.read(name) != seen:
                    raise _conflict(self.where(name))
                self.write(name, data)
        except OSError as error:
            raise self._failed("written", name, error) from error

    def names(self, prefix: str = "") -> list[str]:
        folders = os.walk(self.folder, onerror=self._unlisted)
        paths = (Path(folder, name) for folder, _, files in folders for name in files if not name.startswith(".part-"))
        names = (path.relative_to(self.folder).as_posix() for path in paths if path.is_file())
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("removed", name, error) from error

    def _unlisted(self, error: OSError) -> None:
        """A folder that is not there, or no more, holds nothing; one that may not be read could hold anything."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise RepositoryError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def _failed(self, what: str, name: str, error: OSError) -> RepositoryError:
        return RepositoryError(f"{self.where(name)}: cannot be {what}: {error.strerror}")


class S3Store:
    """Objects below a prefix. Credentials come by boto3's own chain."""

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
                        raise _conflict(self.where(name))
                condition = {"IfMatch": answer["ETag"]}
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **condition)
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") in _CONFLICTS:
                raise _conflict(self.where(name)) from None
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


def _conflict(where: str) -> StoreConflict:
    return StoreConflict(f"{where} was changed by someone else just now; nothing was written; try again")


def open_store(place: str, s3: S3Settings) -> Store:
    """The store at a folder's path or an `s3://bucket/prefix`. Raises RepositoryError for any other address."""
    if "://" not in place:
        return FolderStore(Path(place))
    address = _S3_ADDRESS.fullmatch(place)
    if address is None:
        raise RepositoryError(f"{place!r} is no place for models; give a folder or s3://bucket/prefix")
    return S3Store(address["bucket"], address["prefix"] or "", s3)
