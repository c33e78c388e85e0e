"""`sluice backfill`: judges what lies in a bucket already."""

import os
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schemas import S3Reference
from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.events import EventMaker
from worker.cli.extras import extra, need
from worker.cli.options import ConfigOption, ModelOption, PolicyOption
from worker.cli.stopping import stopping
from worker.policy.frozen import frozen_policy
from worker.scoring.model import load_model
from worker.scoring.opening import open_engine
from worker.scoring.stores import RepositoryError
from worker.settings import Settings, load_settings
from worker.telemetry.logs import configure_logging

app = typer.Typer(add_completion=False)


@app.command()
def backfill(
    source: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where the images are.")],
    output: Annotated[
        str, typer.Option("--output", metavar="DIR|s3://…", help="Where the Parquet files and the progress go.")
    ],
    per_second: Annotated[
        float | None, typer.Option("--per-second", min=0.01, metavar="N", help="Begin at most N images in a second.")
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Judge the I-th of N parts; run all N, anywhere.")
    ] = "1/1",
    tenant: Annotated[str, typer.Option("--tenant", help="Whose rules of the policy apply.")] = "default",
    model: ModelOption = None,
    policy: PolicyOption = None,
    config: ConfigOption = None,
) -> None:
    """Judge the images that a bucket already holds, and write their verdicts to Parquet files.

    Objects are listed while they are judged, so a bucket may hold any number. Kafka and Redis are not used. It can be
    stopped at any time; the same command goes on where it was.

    Exit code: 0 when every image is judged, 1 when it was stopped before, 2 when it could not begin.
    """
    need("fakeredis", "pyarrow")
    EventMaker(tenant=tenant).check()
    bucket, prefix = _place(source)
    settings = _settings(config, model, policy)
    configure_logging(settings.telemetry.model_copy(update={"log_level": "WARNING"}))
    with extra("backfill"):
        from worker.backfill.request import BackfillRequest, BackfillState, Shard
        from worker.backfill.result_folder import BackfillError
        from worker.backfill.run import BackfillOptions
        from worker.backfill.run import backfill as run

    number, count = _numbers(shard)
    with frozen_policy(settings, None) as (frozen, active), stopping() as stop, _bar() as progress:
        loaded = load_model(frozen.model, frozen.s3)
        request = BackfillRequest(bucket, prefix, tenant, loaded.manifest.digest, active.digest, Shard(number, count))
        task = progress.add_task("", total=None)

        def on_progress(state: BackfillState) -> None:
            progress.update(task, description=f"{state.judged:,} judged, {state.failed:,} failed, at {state.after_key}")

        try:
            state = run(
                frozen,
                request,
                BackfillOptions(output, per_second),
                loaded,
                lambda: open_engine(frozen, loaded),
                stop,
                on_progress,
            )
        except (BackfillError, RepositoryError) as error:
            raise UsageError(str(error)) from error
    console.out.print(
        f"{state.judged:,} images judged, {state.failed:,} of them could not be: {output}", markup=False, soft_wrap=True
    )
    if not state.is_over:
        raise CommandFailed(f"stopped after {state.after_key!r}; the same command goes on from there")


def _place(source: str) -> tuple[str, str]:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    try:
        S3Reference(bucket=bucket if source.startswith("s3://") else "", key="x")
    except ValidationError as error:
        raise UsageError(f"{source}: no bucket's name; write s3://bucket/prefix") from error
    return bucket, prefix


def _numbers(shard: str) -> tuple[int, int]:
    """The shard's number, from 0, and how many there are."""
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 9999):
        raise UsageError(f"--shard {shard}: write it as 1/8 to 8/8")
    return int(number) - 1, int(count)


def _settings(config: ConfigOption, model: ModelOption, policy: PolicyOption) -> Settings:
    settings = load_settings(config, os.environ)
    changes: dict[str, object] = {} if model is None else {"model": model}
    if policy is not None:
        changes["policy"] = policy.resolve()
    return settings.model_copy(update=changes)


def _bar() -> Progress:
    """What is judged so far; nothing in a pipe."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal)
