"""Opens the store at an address."""

import re
from pathlib import Path

from worker.scoring.stores import FileStore, FolderStore, RepositoryError
from worker.settings import S3Settings

_S3_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]+)(?:/(?P<prefix>.*))?")


def open_store(place: str, s3: S3Settings) -> FileStore:
    """Opens the store in a folder or at `s3://bucket/prefix`. Raises RepositoryError for any other address."""
    if "://" not in place:
        return FolderStore(Path(place))
    address = _S3_ADDRESS.fullmatch(place)
    if address is None:
        raise RepositoryError(f"{place!r} is not a model repository; use a folder or s3://bucket/prefix")
    from worker.scoring.s3_store import S3Store  # boto3 takes 0.2 s to load

    return S3Store(address["bucket"], address["prefix"] or "", s3)
