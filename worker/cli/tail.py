"""`sluice tail`: follows a topic."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Annotated

import typer

from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.records import Topic, describe
from worker.cli.stream import open_stream
from worker.intake.embedded import embedded_log
from worker.intake.log import Record
from worker.intake.notifications import MalformedRecord
from worker.intake.packs import unpack

app = typer.Typer(add_completion=False)


@app.command()
def tail(
    topic: Annotated[Topic, typer.Option("--topic", help="The topic to follow.")] = Topic.VERDICTS,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start at the oldest record.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more records, or stop at the end.")
    ] = True,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this many records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line, for programs.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Follow verdicts, or the records of another topic, as they are committed.

    Without --config the embedded log is followed.
    """
    if not follow and not from_beginning:
        raise UsageError("--no-follow alone shows nothing: it starts and stops at the end; add --from-beginning")
    place = find_place(config, data)
    name = getattr(place.settings.kafka.topics, topic)
    if place.data is not None and not embedded_log(place.data).exists():
        console.err.print(f"there was no log in {place.data}; a new one was made", markup=False, soft_wrap=True)
    with closing(open_stream(place)) as stream:
        try:
            records: Iterable[Record] = stream.read(name, from_beginning=from_beginning, follow=follow)
            if topic in (Topic.SURPLUS, Topic.SURPLUS_LONG):
                records = _unpacked(records)
            for record in islice(records, limit):
                try:
                    _print(topic, record.value or b"", as_json)
                except ValueError:  # of which pydantic's and JSON's errors are kinds
                    where = f"{name}, partition {record.partition.number}, offset {record.offset}"
                    console.err.print(f"{where}: not a valid record of this topic; skipped", markup=False)
        except KeyboardInterrupt:  # Ctrl-C ends the command
            return


def _unpacked(records: Iterable[Record]) -> Iterator[Record]:
    """Each moved event as a record of its own; a pack that cannot be read stays as it is."""
    for record in records:
        try:
            yield from unpack(record)
        except MalformedRecord:
            yield record


def _print(topic: Topic, value: bytes, as_json: bool) -> None:
    if as_json:
        # One line per record, also if its producer wrote JSON over several lines.
        print(json.dumps(json.loads(value), separators=(",", ":")), flush=True)
    else:
        console.out.print(describe(topic, value), soft_wrap=True)
