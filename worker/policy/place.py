"""Where a policy lives: a file, or an object of S3. Replaced only by who has seen what is there."""

import os
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

import botocore.exceptions

from worker.atomic_files import locked_folder, write_atomically
from worker.policy.errors import PolicyConflict, PolicyError, PolicyReadOnly
from worker.policy.loading import DEFAULT, parse_policy
from worker.policy.policy import Policy
from worker.policy.text import PolicyText
from worker.s3_client import make_s3_client
from worker.settings import PolicyAddress, S3Settings, Settings

SAVED_NAME: Final = "policy.yaml"
"""The file below the embedded data folder that holds the policy, once one was saved."""
MAX_BYTES: Final = 1024 * 1024


class PolicyPlace(Protocol):
    """Where a policy lives. Safe to use from several threads."""

    @property
    def address(self) -> str:
        """The place, for people."""

    def read(self, known: PolicyText | None = None) -> PolicyText:
        """What stands there; `known` itself where that has not changed. Raises PolicyError."""

    def replace(self, seen: str, content: bytes) -> PolicyText:
        """Writes the content, whole, in place of the text with the digest `seen`.

        Raises PolicyConflict when another text stands there, PolicyReadOnly where none can be written, PolicyError for
        what else the place does not do.
        """


NO_PLACE: Final = (
    "the settings name no policy, so there is no place to save one: set `policy` to a file or an s3://bucket/key that "
    "the desk may write and all workers read, and put a policy there"
)


class ShippedPlace:
    """The policy that ships. It cannot be replaced: the settings must name where another lives."""

    address = "the policy that ships"

    def read(self, known: PolicyText | None = None) -> PolicyText:
        return known or PolicyText(DEFAULT.read_bytes(), shipped=True)

    def replace(self, seen: str, content: bytes) -> PolicyText:  # noqa: ARG002
        raise PolicyReadOnly(NO_PLACE)


class FilePlace:
    """A file. With `may_be_absent` the policy that ships stands in until there is one.

    Replaced by renaming, so that nobody reads half of it; two desks on one machine take turns.
    """

    def __init__(self, path: Path, *, may_be_absent: bool = False) -> None:
        self._path = path
        self._may_be_absent = may_be_absent
        self._turn = threading.Lock()

    @property
    def address(self) -> str:
        return str(self._path)

    def read(self, known: PolicyText | None = None) -> PolicyText:
        try:
            with open(self._path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise PolicyError(
                        f"{self.address}: is a pipe or a device; it must be a file, as it is read time and again"
                    )
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError as error:
            if self._may_be_absent:
                return ShippedPlace().read(known if known is not None and known.shipped else None)
            raise self._failed("cannot be read", error) from None
        except OSError as error:
            raise self._failed("cannot be read", error) from None
        text = PolicyText(_bounded(content, self.address))
        return known if known is not None and known.digest == text.digest and not known.shipped else text

    def replace(self, seen: str, content: bytes) -> PolicyText:
        target = self._path.resolve()  # a link goes on to point where it does
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._turn, locked_folder(target.parent):
                present = self.read()
                if present.digest != seen:
                    raise PolicyConflict(present)
                mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
                write_atomically(target, content, mode=mode)
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise PolicyReadOnly(f"{self.address}: {reason}; the desk must be allowed to write there") from None
        return PolicyText(content)

    def _failed(self, what: str, error: OSError) -> PolicyError:
        return PolicyError(f"{self.address}: {what}: {error.strerror or error}")


class S3Place:
    """An object of S3. Replaced under the condition (If-Match) that it is still the one that was seen."""

    def __init__(self, address: str, settings: S3Settings) -> None:
        self.address = address
        self._bucket, _, self._key = address.removeprefix("s3://").partition("/")
        self._client = make_s3_client(settings, connect_seconds=3, read_seconds=5, attempts=2)

    def read(self, known: PolicyText | None = None) -> PolicyText:
        condition = {"IfNoneMatch": known.etag} if known is not None and known.etag is not None else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **condition)
            with answer["Body"] as body:
                content = body.read(MAX_BYTES + 1)
        except botocore.exceptions.ClientError as error:
            if known is not None and _code(error) in {"304", "NotModified"}:
                return known
            raise self._failed("cannot be read", error) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise self._failed("cannot be read", error) from None
        text = PolicyText(_bounded(content, self.address), etag=answer.get("ETag"))
        return known if known is not None and known.digest == text.digest else text

    def replace(self, seen: str, content: bytes) -> PolicyText:
        present = self.read()
        if present.digest != seen or present.etag is None:
            raise PolicyConflict(present)
        try:
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self._key,
                Body=content,
                ContentType="application/yaml",
                IfMatch=present.etag,
            )
        except botocore.exceptions.ClientError as error:
            if _code(error) in {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}:
                raise PolicyConflict(self.read()) from None
            if _code(error) in {"403", "AccessDenied"}:
                raise PolicyReadOnly(f"{self.address}: the desk may not write there: {error}") from None
            raise self._failed("cannot be written", error) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise self._failed("cannot be written", error) from None
        return PolicyText(content, etag=answer.get("ETag"))

    def _failed(self, what: str, error: Exception) -> PolicyError:
        return PolicyError(f"{self.address}: {what}: {error}")


def open_place(address: PolicyAddress, s3: S3Settings) -> PolicyPlace:
    """The place of an address, `s3://bucket/key` or a file's path."""
    return FilePlace(address) if isinstance(address, Path) else S3Place(address, s3)


def place_of(settings: Settings, data: Path | None) -> PolicyPlace:
    """Where the settings' policy lives. Without one it is the policy that ships, and embedded, below the folder `data`,
    the file that saving makes there."""
    if settings.policy is not None:
        return open_place(settings.policy, settings.s3)
    return ShippedPlace() if data is None else FilePlace(data / SAVED_NAME, may_be_absent=True)


def present_policy(settings: Settings, data: Path | None = None) -> Policy:
    """The settings' policy as it is now. Raises PolicyError."""
    place = place_of(settings, data)
    return parse_policy(place.read().content, place.address)


def _bounded(content: bytes, address: str) -> bytes:
    if len(content) > MAX_BYTES:
        raise PolicyError(f"{address}: has more than {MAX_BYTES} bytes, which no policy needs")
    return content


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe, too, that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)
