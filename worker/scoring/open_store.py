"""Opens the store at an address."""

import re
from pathlib import Path

from worker.scoring.stores import FileStore, FolderStore, RepositoryError
from worker.settings import S3Settings

_S3_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]+)(?:/(?P<prefix>.*))?")


def open_store(place: str, s3: S3Settings) -> FileStore:
    """The store at a folder's path or an `s3://bucket/prefix`. Raises RepositoryError for any other address."""
    if "://" not in place:
        return FolderStore(Path(place))
    address = _S3_ADDRESS.fullmatch(place)
    if address is None:
        raise RepositoryError(f"{place!r} is no place for models; give a folder or s3://bucket/prefix")
    from worker.scoring.s3_store import S3Store  # boto3 takes 0.2 s to load

    return S3Store(address["bucket"], address["prefix"] or "", s3)
