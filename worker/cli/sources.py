"""Turns a command's arguments into image references: files, folders, globs, `s3://bucket/prefix`, `https://…`."""

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pydantic import ValidationError

from schemas import FailureReason, FileReference, HttpReference, ImageReference, S3Reference
from worker.cli.errors import UsageError
from worker.images.formats import HEAD_BYTES, foreign_format, sniff
from worker.images.suffixes import SUFFIXES, is_image_key
from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat

LISTED = 20
"""How many names of skipped files are kept."""

ListObjects = Callable[[str, str], Iterable[S3Reference]]
"""Bucket and prefix → their objects, sorted by key."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image with its display name. `reference` is None if it cannot be read; `problem` says why."""

    name: str
    reference: ImageReference | None
    problem: str = ""
    reason: FailureReason = FailureReason.FETCH_FAILED
    """The failure reason of the problem."""


class Sources:
    """The images that `arguments` name, in that order. Files in folders and objects below prefixes are sorted by name.

    A file that is an argument itself is always used. A file in a folder is used if its first bytes or its suffix are
    those of an image. An object in a bucket is used if it has an image's suffix or no suffix, because reading each
    object would cost a request.

    Images are found during iteration, so a bucket of any size works. After an iteration, `skipped` is the number of
    files that are not images, `skipped_names` the first of their names, `links` the number of links to folders, which
    are not followed because they may be circular, and `unreadable` lists the folders that could not be read.

    Raises UsageError at once for an argument that matches nothing.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        list_objects: ListObjects,
        formats: Collection[ImageFormat] = DEFAULT_FORMATS,
    ) -> None:
        self._arguments = arguments
        self._list_objects = list_objects
        self._formats = formats
        self.skipped = 0
        self.skipped_names: list[str] = []
        self.links = 0
        self.unreadable: list[str] = []
        for argument in arguments:
            _check(argument)

    def count(self) -> int | None:
        """The number of images, if it can be known without a request to a server; else None."""
        if any(_is_remote(argument) for argument in self._arguments):
            return None
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[ImageSource]:
        self.skipped = 0
        self.skipped_names = []
        self.links = 0
        self.unreadable = []
        for argument in self._arguments:
            if argument.startswith("s3://"):
                yield from self._objects(argument)
            elif _is_remote(argument):
                yield ImageSource(argument, HttpReference(url=argument))
            else:
                yield from self._files(argument)

    def _objects(self, uri: str) -> Iterator[ImageSource]:
        bucket, prefix = _bucket_and_prefix(uri)
        for reference in self._list_objects(bucket, prefix):
            is_named = reference.key == prefix and not prefix.endswith("/")
            if is_named or is_image_key(reference.key):
                yield ImageSource(f"s3://{bucket}/{reference.key}", reference)
            elif not reference.key.endswith("/"):  # S3 consoles make "folders" as empty objects
                self._skip(f"s3://{bucket}/{reference.key}")

    def _files(self, argument: str) -> Iterator[ImageSource]:
        places = [argument] if os.path.lexists(argument) else _outermost(_matches(argument, self._note))
        for place in places:
            if not _is_folder(place):
                yield _file(place)
                continue
            for folder, folders, names in os.walk(place, onerror=self._note):
                folders.sort()
                self.links += sum(Path(folder, name).is_symlink() for name in folders)
                for name in sorted(names):
                    source = self._found(str(Path(folder, name)))
                    if source is None:
                        self._skip(str(Path(folder, name)))
                    else:
                        yield source

    def _found(self, path: str) -> ImageSource | None:
        """A source for a file in a folder; None if it is not an image."""
        is_called_image = PurePath(path).suffix.lower() in SUFFIXES
        source = _file(path)
        if source.reference is None:
            return source if is_called_image else None
        try:
            with Path(path).open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError as error:
            return ImageSource(path, None, error.strerror or str(error), FailureReason.ACCESS_DENIED)
        image_format, foreign = sniff(head), foreign_format(head)
        if image_format is not None and image_format not in self._formats:
            problem = f"{image_format.label} images are not read; add {image_format.value} to images.formats"
            return ImageSource(path, None, problem, FailureReason.UNSUPPORTED_FORMAT)
        if image_format is None and foreign is not None:
            return ImageSource(path, None, f"{foreign} images are not read", FailureReason.UNSUPPORTED_FORMAT)
        return source if image_format is not None or is_called_image else None

    def _skip(self, name: str) -> None:
        self.skipped += 1
        if len(self.skipped_names) < LISTED:
            self.skipped_names.append(name)

    def _note(self, error: OSError) -> None:
        self.unreadable.append(f"{error.filename}: {error.strerror}")


def _is_remote(argument: str) -> bool:
    return argument.startswith(("s3://", "http://", "https://"))


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix


def _check(argument: str) -> None:
    if argument.startswith("s3://"):
        try:
            S3Reference(bucket=_bucket_and_prefix(argument)[0], key="x")
        except ValidationError as error:
            raise UsageError(f"{argument}: the bucket is missing; write s3://bucket/prefix") from error
    elif _is_remote(argument):
        try:
            HttpReference(url=argument)
        except ValidationError as error:
            raise UsageError(f"{argument}: not a valid address") from error
    elif not os.path.lexists(argument) and next(_matches(argument), None) is None:
        raise UsageError(f"{argument}: no such file or folder, and no file matches it as a pattern")


def _matches(pattern: str, note: Callable[[OSError], object] = lambda _error: None) -> Iterator[str]:
    """The matches of a pattern; some may repeat. `**` does not follow links, unlike glob's: a link to a parent folder
    would be followed forty levels deep, and so would every combination of two such links. `note` is called for folders
    that cannot be read.
    """
    parts = PurePath(pattern).parts
    if "**" not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207 - Path.glob takes no absolute patterns
        return
    head, tail = parts[: parts.index("**")], parts[parts.index("**") + 1 :]
    for base in glob.iglob(os.path.join(*head, "")) if head else ["."]:  # noqa: PTH118, PTH207 - with its slash: folders
        if not tail:
            yield base
            continue
        for folder, folders, _ in os.walk(base, onerror=note):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matches(str(PurePath(glob.escape(folder), *tail)), note)


def _outermost(matches: Iterable[str]) -> list[str]:
    """Each path once, sorted, without those below another one of them: searching that folder finds them."""
    places = sorted({Path(match) for match in matches})
    folders = {place for place in places if _is_folder(place)}
    return [str(place) for place in places if folders.isdisjoint(place.parents)]


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for links into folders that are closed to us


def _file(path: str) -> ImageSource:
    try:
        # Reading something other than a regular file (a pipe, a device) could block for ever.
        if not Path(path).is_file():
            Path(path).stat()
            return ImageSource(path, None, "not a regular file")
        return ImageSource(path, FileReference(path=str(Path(path).absolute())))
    except OSError as error:
        return ImageSource(path, None, error.strerror or str(error))
    except ValidationError:
        return ImageSource(path, None, "its name is not UTF-8 or is too long; rename it")
