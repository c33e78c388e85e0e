"""`sluice topics`: creates the topics, and accepts the loss of deleted records."""

from typing import Annotated

import typer

from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.stream import open_stream
from worker.intake.lost_records import accept, find_lost
from worker.intake.topics import create_topics

app = typer.Typer(name="topics", help="Create the topics that the worker needs.", no_args_is_help=True)


@app.command()
def create(
    partitions: Annotated[
        int,
        typer.Option(
            "--partitions",
            min=1,
            max=10_000,
            help="Partitions of each topic: the maximum number of workers that can share it.",
        ),
    ] = 12,
    replication_factor: Annotated[
        int,
        typer.Option(
            "--replication-factor", min=1, max=32_767, help="Replicas of each partition. Use 3 in production."
        ),
    ] = 1,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Create missing topics. Existing topics are never changed; differences are shown.

    In embedded mode (without --config) topics are made on first use, and this does nothing.
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
        found = "not reported by the broker" if difference.found is None else difference.found
        console.out.print(
            f"{difference.topic}: {difference.option} is {found}, expected {difference.wanted}", markup=False
        )


@app.command("accept-loss")
def accept_loss(
    config: ConfigOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Let workers continue after Kafka deleted records that were not judged.

    With `kafka.lost_records: stop` a partition stops at such a gap, and the worker is unhealthy, until this command
    accepts the loss. Workers may keep running; they continue within ten seconds.

    Exit code: 0 when no records were lost or the loss is accepted, 1 when it is not.
    """
    if config is None:
        raise UsageError("--config FILE is needed; the embedded log never loses records")
    settings = find_place(config, None).settings.kafka
    lost = find_lost(settings)
    if not lost:
        console.out.print("no records were lost", markup=False)
        return
    for each in lost:
        console.out.print(str(each), markup=False, soft_wrap=True)
    if not yes and not typer.confirm("These records will not be judged. Continue without them?"):
        raise CommandFailed("the loss is not accepted; the partitions stay stopped")
    accept(settings, lost)
    console.out.print("accepted: workers continue within ten seconds", markup=False)
