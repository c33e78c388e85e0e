"""`sluice trust drift`: whether the images of a tenant and generator have changed."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from schemas import Verdict
from worker.cli import console
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.stream import open_stream
from worker.cli.trust_records import read_records, require_readable
from worker.trust.drift import ENOUGH, Alarm, DriftComparison, DriftCounts, DriftWindows

SHOWN: Final = 20
"""Cells without an alarm, of most images, that the table has."""
DRIFTED: Final = 3
"""The exit code that `--exit-code` asks for."""


def drift(
    days: Annotated[int, typer.Option("--days", min=1, help="The recent window: the last so many days.")] = 7,
    against: Annotated[
        int, typer.Option("--against", min=1, help="The window before it, which it is compared with, in days.")
    ] = 28,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 3 if something changed, for scheduled jobs.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Tell which tenants' and generators' images have changed: their quality, their failures, or a new generator.

    Verdicts of the last days are compared with those of the days before, for each tenant, generator and model. An alarm
    names events to look at. Exit code: 0, 1 when a record could not be read, 2 for wrong options.
    """
    place = find_place(config, data)
    counts = DriftCounts(DriftWindows.ending(datetime.now(UTC), days=days, against_days=against))
    unreadable = Counter[str]()
    with closing(open_stream(place)) as stream:
        for verdict in read_records(stream, place.settings.kafka.topics.verdicts, Verdict, unreadable):
            counts.add(verdict)
    found = counts.compare()
    if as_json:
        windows = {name: at.isoformat() for name, at in asdict(counts.windows).items()}
        print(json.dumps({"windows": windows, "cells": [asdict(each) for each in found]}))
    elif not found:
        console.out.print(f"no image was judged in the last {days} days", markup=False)
    else:
        console.out.print(_table(found))
        for line in _explanations(found, days, against):
            console.out.print(line, markup=False, soft_wrap=True)
    require_readable(unreadable)
    if exit_code and any(each.alarms for each in found):
        raise typer.Exit(DRIFTED)


def sentences(comparison: DriftComparison) -> Iterator[str]:
    """What changed in a cell, one sentence for each alarm."""
    cell = comparison.cell
    whose = console.printable(f"{cell.tenant}, {cell.generator or 'unknown generator'}")
    for alarm in comparison.alarms:
        yield f"{whose}: {_change(comparison, alarm)}{_look_at(alarm)}"


def _change(comparison: DriftComparison, alarm: Alarm) -> str:
    before, now = comparison.before, comparison.now
    match alarm.kind:
        case "quality":
            return (
                f"the quality has changed: mean {_mean(before.mean_quality)}, now {_mean(now.mean_quality)} "
                f"({alarm.size:.0%} of the images moved)"
            )
        case "failures":
            reasons = ", ".join(f"{name} {count:,}" for name, count in now.reasons.items())
            return f"{now.failures:.1%} could not be judged, {before.failures:.1%} before (now: {reasons or 'none'})"
        case "new":
            return f"a new generator, {now.images:,} images, mean quality {_mean(now.mean_quality)}"


def _look_at(alarm: Alarm) -> str:
    if not alarm.examples:
        return ""
    return f"; look at {', '.join(console.printable(event) for event in alarm.examples)}"


def _mean(quality: float | None) -> str:
    return "-" if quality is None else f"{quality:.2f}"


def _table(found: Sequence[DriftComparison]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("tenant", "generator", "model"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("images (before)", "quality", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("changed", no_wrap=True)
    alarms = sum(bool(each.alarms) for each in found)
    for each in found[: alarms + SHOWN]:
        cell, now, before = each.cell, each.now, each.before
        changed = Text(", ".join(alarm.kind for alarm in each.alarms), style="bold red")
        if not each.alarms:
            changed = Text("no" if each.compared else "too few", style="green" if each.compared else "dim")
        table.add_row(
            *(
                Text(console.printable(name))
                for name in (cell.tenant, cell.generator or "unknown", cell.model.removeprefix("sha256:")[:8])
            ),
            f"{now.images:,} ({before.images:,})",
            f"{_mean(now.mean_quality)} ({_mean(before.mean_quality)})",
            f"{now.failures:.1%} ({before.failures:.1%})",
            changed,
        )
    return table


def _explanations(found: Sequence[DriftComparison], days: int, against: int) -> Iterator[str]:
    alarms = [each for each in found if each.alarms]
    for each in alarms:
        yield from sentences(each)
    if not alarms:
        yield "nothing has changed that can be told from chance"
    if len(found) > len(alarms) + SHOWN:
        yield f"{len(found) - len(alarms) - SHOWN:,} more rows without a change; --json has all"
    yield (
        f"The last {days} days are compared with the {against} days before, where both have at least {ENOUGH} images. "
        "Where nothing changes, one look in 1,000 raises an alarm."
    )
