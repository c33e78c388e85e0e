"""Makes image events from sources, or reads them from lines of JSON."""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from schemas import FileReference, ImageEvent, ImageReference, InlineReference
from schemas.explain import problems
from worker.cli.errors import UsageError
from worker.cli.lines import read_lines
from worker.cli.sources import ImageSource


@dataclass(frozen=True, slots=True)
class UnreadableEvent:
    """A source or line without a valid event, with the reason."""

    message: str


def new_id(_name: str) -> str:
    """A new unique id."""
    return str(uuid.uuid4())


def stable_id(prefix: str) -> Callable[[str], str]:
    """Returns a function that makes ids from the prefix and the image's address, so that an image submitted again gets
    the same id.
    """
    return lambda name: f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


@dataclass(frozen=True, slots=True)
class EventMaker:
    """Makes the event for a source. `inline` puts the bytes of files, at most `max_bytes`, into the event."""

    make_id: Callable[[str], str] = new_id
    inline: bool = False
    max_bytes: int = 32 * 1024 * 1024
    tenant: str = "default"
    prompt: str | None = None
    generator: str | None = None
    priority: int = 50
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def check(self) -> None:
        """Checks the options before the first image. Raises UsageError."""
        try:
            self._made("", FileReference(path="/"))
        except ValidationError as error:
            raise UsageError(explain(error)) from error

    def events(self, sources: Iterable[ImageSource]) -> Iterator[ImageEvent | UnreadableEvent]:
        """One event or one problem for each source, in order."""
        for source in sources:
            try:
                yield self._event(source)
            except OSError as error:
                yield UnreadableEvent(f"{source.name}: {error.strerror}")
            except ValidationError as error:
                yield UnreadableEvent(f"{source.name}: {explain(error)}")

    def _event(self, source: ImageSource) -> ImageEvent | UnreadableEvent:
        reference = source.reference
        if reference is None:
            return UnreadableEvent(f"{source.name}: {source.problem}")
        place = reference.path if isinstance(reference, FileReference) else source.name
        if self.inline:
            if not isinstance(reference, FileReference):
                return UnreadableEvent(f"{source.name}: --inline needs local files")
            data = _read(Path(reference.path), self.max_bytes)
            if data is None:
                return UnreadableEvent(f"{source.name}: more than images.max_bytes ({self.max_bytes:,})")
            reference = InlineReference(bytes=data)
        return self._made(place, reference)

    def _made(self, place: str, reference: ImageReference) -> ImageEvent:
        return ImageEvent(
            id=self.make_id(place),
            occurred_at=self.clock(),
            tenant=self.tenant,
            image=reference,
            prompt=self.prompt,
            generator=self.generator,
            priority=self.priority,
        )


def read_events(path: Path) -> Iterator[ImageEvent | UnreadableEvent]:
    """One event or one problem for each line of JSON, in order. Raises UsageError when the file cannot be read."""
    for place, line in read_lines(path):
        try:
            yield ImageEvent.model_validate_json(line)
        except ValidationError as error:
            yield UnreadableEvent(f"{place}: {explain(error)}")


def explain(error: ValidationError) -> str:
    """A validation error as one line: the place and the problem."""
    return "; ".join(map(str, problems(error, known=ImageEvent.model_fields)))


def _read(path: Path, max_bytes: int) -> bytes | None:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    return data if len(data) <= max_bytes else None
