"""Where a policy is stored: a file or an object of S3. A write names the content that it replaces (compare-and-set)."""

import os
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

from worker.atomic_files import locked_folder, write_atomically
from worker.policy.errors import PolicyConflict, PolicyError, PolicyReadOnly
from worker.policy.limits import MAX_BYTES, bounded
from worker.policy.loading import DEFAULT, parse_policy
from worker.policy.policy import Policy
from worker.policy.requirements import require_provenance
from worker.policy.text import PolicyText
from worker.settings import PolicyAddress, S3Settings, Settings

SAVED_NAME: Final = "policy.yaml"
"""The file below the embedded data folder that holds the policy, once one was saved."""


class PolicyPlace(Protocol):
    """A place that a policy is read from and saved to. Safe to use from several threads."""

    @property
    def address(self) -> str:
        """The address, for messages."""

    def read(self, known: PolicyText | None = None) -> PolicyText:
        """Reads the policy; returns `known` if it has not changed. Raises PolicyError."""

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
    """The default policy. It is read-only: to save one, the settings must name a place."""

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
        text = PolicyText(bounded(content, self.address))
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


def open_place(address: PolicyAddress, s3: S3Settings) -> PolicyPlace:
    """The place of an address, `s3://bucket/key` or a file's path."""
    if isinstance(address, Path):
        return FilePlace(address)
    from worker.policy.s3_place import S3Place  # boto3 takes 0.2 s to load

    return S3Place(address, s3)


def place_of(settings: Settings, data: Path | None) -> PolicyPlace:
    """Where the settings' policy lives. Without one it is the policy that ships, and embedded, below the folder `data`,
    the file that saving makes there."""
    if settings.policy is not None:
        return open_place(settings.policy, settings.s3)
    return ShippedPlace() if data is None else FilePlace(data / SAVED_NAME, may_be_absent=True)


def present_policy(settings: Settings, data: Path | None = None) -> Policy:
    """Loads the policy that the settings name. Raises PolicyError, also where it reads more than the settings allow."""
    place = place_of(settings, data)
    policy = parse_policy(place.read().content, place.address)
    require_provenance(policy, settings.images.provenance, place.address)
    return policy


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file without blocking, even a pipe that has no writer."""
    return os.open(path, flags | os.O_NONBLOCK)
