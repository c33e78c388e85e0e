"""`sluice submit`: publishes image events."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from schemas import FileReference, ImageEvent
from worker.cli import console
from worker.cli.buckets import object_lister
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.events import EventMaker, UnreadableEvent, new_id, read_events, stable_id
from worker.cli.options import ConfigOption, DataOption, Place, find_place
from worker.cli.sources import Sources
from worker.cli.stream import open_stream

app = typer.Typer(add_completion=False)


@app.command()
def submit(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", help="Files, folders, globs, s3://bucket/prefix or https://…"),
    ] = None,
    events: Annotated[
        Path | None, typer.Option("--events", metavar="FILE", help="Complete events as JSON lines; - is stdin.")
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="Put the files' bytes into the events instead of their paths.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Pin s3:// objects to their current version (versioned buckets).")
    ] = False,
    tenant: Annotated[str, typer.Option("--tenant", help="The images' tenant.")] = "default",
    prompt: Annotated[str | None, typer.Option("--prompt", help="The generation prompt.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="The generator.")] = None,
    priority: Annotated[int, typer.Option("--priority", min=0, max=100, help="0 to 100; 100 is judged first.")] = 50,
    id_prefix: Annotated[
        str | None,
        typer.Option(
            "--id-prefix",
            metavar="TEXT",
            help="Make event ids from TEXT and the image's address, so that the same image always gets the same id.",
        ),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Publish one event for each image.

    Without --config the events go to the embedded log.

    Exit code: 0 when every event is stored, 1 when some are not, 2 when nothing was tried.
    """
    if bool(paths) == (events is not None):
        raise UsageError("give either PATH... or --events FILE")
    place = find_place(config, data)
    sources: Sources | None = None
    if events is not None:
        made = read_events(events)
    else:
        maker = EventMaker(
            new_id if id_prefix is None else stable_id(id_prefix),
            inline,
            place.settings.images.max_bytes,
            tenant,
            prompt,
            generator,
            priority,
        )
        maker.check()
        sources = Sources(paths or [], object_lister(place.settings, versions=versions), place.settings.images.formats)
        made = maker.events(sources)
    sent, bad = _publish(place, made)
    if sources is not None:
        console.tell_left_out(console.out, sources.skipped, sources.skipped_names, sources.links, sources.unreadable)
        if not sent and not bad and not sources.unreadable:
            raise UsageError(f"no images in {', '.join(paths or [])}")
    if bad:
        raise CommandFailed(f"{bad:,} events were not submitted, {sent:,} were")
    if sources is not None and sources.unreadable:
        raise CommandFailed(f"{len(sources.unreadable):,} folders could not be read")


def _publish(place: Place, made: Iterator[ImageEvent | UnreadableEvent]) -> tuple[int, int]:
    """Returns how many events were stored, and how many could not be made or were too large."""
    settings = place.settings
    limit = settings.kafka.max_message_bytes
    sent = bad = outside = 0
    with closing(open_stream(place)) as stream:
        for event in made:
            if isinstance(event, ImageEvent):
                value = event.model_dump_json(by_alias=True, exclude_none=True).encode()
                if len(value) <= limit:
                    stream.publish(event.id.encode(), value)
                    sent += 1
                    outside += _is_outside(event, settings.files.roots)
                    continue
                problem = f"{event.id}: {len(value):,} bytes, and kafka.max_message_bytes is {limit:,}; send its path"
            else:
                problem = event.message
            bad += 1
            console.err.print(console.printable(problem), markup=False, soft_wrap=True)
        stream.flush()
    where = settings.kafka.bootstrap_servers if place.data is None else f"the embedded log in {place.data}"
    console.out.print(f"{sent:,} events in {settings.kafka.topics.images} of {where}", markup=False, soft_wrap=True)
    if outside:
        console.err.print(
            f"{outside:,} of these files are outside files.roots; a worker with these settings refuses them"
        )
    return sent, bad


def _is_outside(event: ImageEvent, roots: Sequence[Path]) -> bool:
    if not isinstance(event.image, FileReference):
        return False
    path = Path(event.image.path).resolve()
    return not any(path.is_relative_to(root.resolve()) for root in roots)
