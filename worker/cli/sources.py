"""From what a user types to image references: files, folders, globs, `s3://bucket/prefix`, `https://…`."""

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from pydantic import ValidationError

from schemas import FailureReason, FileReference, HttpReference, ImageReference, S3Reference
from worker.cli.errors import UsageError
from worker.images.formats import HEAD_BYTES, foreign_format, sniff
from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat

SUFFIXES = frozenset(
    {
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".png",
            ".apng",
            ".webp",
            ".gif",
            ".avif",
            ".avifs",
            ".bmp",
            ".dib",
            ".jxl",
        ),
        *(".heic", ".heif", ".hif", ".tif", ".tiff", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".svg", ".ico", ".exr"),
        *(".hdr", ".dds", ".qoi", ".xcf", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"),
    }
)
"""What an image is called. A file of such a name is taken whatever it holds."""
LISTED = 20
"""Names of files without an image that are kept."""

ListObjects = Callable[[str, str], Iterable[S3Reference]]
"""Bucket and prefix → its objects, in the order of their keys."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image under the name that its user knows. `reference` is None where it cannot be read; `problem` says why."""

    name: str
    reference: ImageReference | None
    problem: str = ""
    reason: FailureReason = FailureReason.FETCH_FAILED
    """Of the problem."""


class Sources:
    """The images that `arguments` name, in that order; folders and prefixes in the order of their names.

    A file that is named itself is always taken. In a folder a file is taken for its content, which is recognised by its
    first bytes, or for its name. Objects of a bucket are taken for their names, since looking into each would be a
    request for each: those with an image's suffix, and those without any.

    They are found while being iterated, so a bucket of any size fits. Of the last iteration `skipped` counts the files
    without an image, of which `skipped_names` has the first, and `links` the links to folders that were not followed,
    since links may lead in circles; `unreadable` lists the folders that could not be looked into. Raises UsageError at
    once for an argument that names nothing.
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
        """How many images there are, where that can be told without asking a server; else None."""
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
            suffix = PurePosixPath(reference.key).suffix.lower()
            if is_named or suffix in SUFFIXES or (not suffix and not reference.key.endswith("/")):
                yield ImageSource(f"s3://{bucket}/{reference.key}", reference)
            elif not reference.key.endswith("/"):  # consoles make "folders" as empty objects
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
        """What lies in a folder; None where it is no image."""
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
            raise UsageError(f"{argument}: no bucket's name; write s3://bucket/prefix") from error
    elif _is_remote(argument):
        try:
            HttpReference(url=argument)
        except ValidationError as error:
            raise UsageError(f"{argument}: not an address") from error
    elif not os.path.lexists(argument) and next(_matches(argument), None) is None:
        raise UsageError(f"{argument}: no such file or folder, and no file matches it as a pattern")


def _matches(pattern: str, note: Callable[[OSError], object] = lambda _error: None) -> Iterator[str]:
    """What a pattern finds, some of it more than once. `**` follows no links, as glob's does: one that leads back up
    would be followed forty levels deep, and every combination of two such links. `note` is told of closed folders."""
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
    """Each place once, in the order of names, without what lies in a folder among them: searching that finds it."""
    places = sorted({Path(match) for match in matches})
    folders = {place for place in places if _is_folder(place)}
    return [str(place) for place in places if folders.isdisjoint(place.parents)]


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for links into folders that are closed to us


def _file(path: str) -> ImageSource:
    try:
        # Whatever is no regular file (a pipe, a device) could be waited for without end.
        if not Path(path).is_file():
            Path(path).stat()
            return ImageSource(path, None, "not a regular file")
        return ImageSource(path, FileReference(path=str(Path(path).absolute())))
    except OSError as error:
        return ImageSource(path, None, error.strerror or str(error))
    except ValidationError:
        return ImageSource(path, None, "its name is not UTF-8 or is too long; rename it")
