"""`sluice topics`: makes the topics."""

from typing import Annotated

import typer

from worker.cli import console
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.stream import open_stream
from worker.intake.topics import create_topics

app = typer.Typer(name="topics", help="Create the topics that the worker needs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `create` a command of its own, though it is the only one."""


@app.command()
def create(
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, max=10_000, help="Of each topic: as many workers can share it.")
    ] = 12,
    replication_factor: Annotated[
        int,
        typer.Option("--replication-factor", min=1, max=32_767, help="Brokers that keep each record; 3 in production."),
    ] = 1,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Create the topics that are missing; an existing one is never changed, but what differs is told.

    Without --config nothing is needed: the embedded topics are made on first use.
    """
    place = find_place(config, data)
    if place.data is not None:
        open_stream(place).close()
        console.out.print(f"the embedded topics are in {place.data}", markup=False, soft_wrap=True)
        return
    report = create_topics(place.settings.kafka, partitions=partitions, replication_factor=replication_factor)
    for name in report.created:
        console.out.print(f"{name}: created with {partitions} partitions", markup=False)
    for name in report.existing:
        console.out.print(f"{name}: exists", markup=False)
    for difference in report.differences:
        found = "not told by the broker" if difference.found is None else difference.found
        console.out.print(
            f"{difference.topic}: {difference.option} is {found}, would be {difference.wanted}", markup=False
        )
