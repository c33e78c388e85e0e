"""`sluice trust`: estimates how many passed images are bad."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from schemas import Decision, Verdict
from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.stream import Stream, open_stream
from worker.review.answers import Status
from worker.review.item_state import CLOSED, fold
from worker.review.sampling import AUDIT_QUEUE
from worker.trust.certificate import Certificate, certify
from worker.trust.misses import MissRate, miss_rates

app = typer.Typer(
    name="trust", help="Estimate how many passed images are bad, with confidence intervals.", no_args_is_help=True
)

_T = TypeVar("_T", Verdict, Decision)
_STYLES = {"certified": "green", "undecided": "yellow", "violated": "bold red"}


@app.callback()
def _group() -> None:
    """Makes `report` a subcommand: typer would run a single command without its name."""


@app.command()
def report(
    at_most: Annotated[
        float,
        typer.Option("--at-most", metavar="SHARE", help="The bound to certify: the share of bad images that may pass."),
    ] = 0.02,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Confidence of the bound and the intervals.")
    ] = 0.95,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Only images judged in the last DAYS days.")] = None,
    by_generator: Annotated[bool, typer.Option("--by-generator", help="A row for each generator of a tenant.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Also rows of earlier models and policies.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Estimate the share of passed images that are bad, from the audit queue's decisions, and certify a bound.

    The interval and the certificate stay valid however often you run this.

    Exit code: 0, 1 when a record could not be read, 2 for wrong options. A violated bound is not an error.
    """
    for name, value in (("--at-most", at_most), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise UsageError(f"{name} {value:g}: expected a number between 0 and 1")
    place = find_place(config, data)
    topics = place.settings.kafka.topics
    since = datetime.now(UTC) - timedelta(days=days) if days is not None else None
    unreadable = Counter[str]()
    with closing(open_stream(place)) as stream:
        audits = _audits(_read(stream, topics.decisions, Decision, unreadable))
        verdicts = (
            verdict
            for verdict in _read(stream, topics.verdicts, Verdict, unreadable)
            if since is None or verdict.judged_at >= since
        )
        found = miss_rates(verdicts, audits, by_generator=by_generator, confidence=confidence)
    rows = [
        (rate, certify(rate.missed, rate.audited, at_most=at_most, confidence=confidence))
        for rate in (found.rates if history else found.in_force())
    ]
    if as_json:
        print(json.dumps({"rates": [_document(*row) for row in rows], "audits_without_verdict": found.without_verdict}))
    elif not rows:
        console.out.print("no image has passed yet, so there is nothing to audit", markup=False)
    else:
        console.out.print(_table(rows, by_generator=by_generator))
        for line in _explanations(rows, at_most, confidence, found.without_verdict if days is None else 0):
            console.out.print(line, markup=False, soft_wrap=True)
    if unreadable:
        numbers = ", ".join(f"{number:,} of {topic}" for topic, number in sorted(unreadable.items()))
        raise CommandFailed(f"these records could not be read and were skipped: {numbers}")


def _read(stream: Stream, topic: str, contract: type[_T], unreadable: Counter[str]) -> Iterator[_T]:
    """The topic's records up to its current end. Counts invalid ones."""
    for record in stream.read(topic, from_beginning=True, follow=False):
        if record.value is None:
            continue  # a tombstone of a compacted topic
        try:
            yield contract.model_validate_json(record.value)
        except ValidationError:
            unreadable[topic] += 1


def _audits(decisions: Iterator[Decision]) -> dict[str, bool]:
    """Verdict id → whether reviewers found the image bad, for settled audit items."""
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.queue == AUDIT_QUEUE:
            by_item.setdefault(decision.item_id, []).append(decision)
    states = ((records[0].verdict_id, fold(records).status) for records in by_item.values())
    return {verdict_id: status is Status.REJECTED for verdict_id, status in states if status in CLOSED}


def _document(rate: MissRate, certificate: Certificate) -> dict[str, object]:
    times = {"first_at": rate.first_at.isoformat(), "last_at": rate.last_at.isoformat()}
    return {**asdict(rate), **times, "share": rate.share, "certificate": asdict(certificate)}


def _table(rows: list[tuple[MissRate, Certificate]], *, by_generator: bool) -> Table:
    table = Table()
    for name in ("tenant", *(("generator",) if by_generator else ()), "model", "policy"):
        table.add_column(name, overflow="fold")
    for name in ("passed", "audited", "bad", "share", "interval"):
        table.add_column(name, justify="right")
    table.add_column("bound")
    for rate, certificate in rows:
        cell = rate.cell
        generator = (cell.generator or "unknown",) if by_generator else ()
        names = (cell.tenant, *generator, _short(cell.model), _short(cell.policy))
        table.add_row(
            *(Text(console.printable(name)) for name in names),
            f"{rate.passed:,}",
            f"{rate.audited:,}",
            f"{rate.missed:,}",
            "-" if rate.share is None else f"{rate.share:.2%}",
            f"{rate.interval.low:.2%} to {rate.interval.high:.2%}",
            Text(certificate.state, style=_STYLES[certificate.state]),
        )
    return table


def _short(digest: str) -> str:
    """The first characters of a digest, enough to distinguish models and policies."""
    return digest.removeprefix("sha256:")[:12]


def _explanations(
    rows: list[tuple[MissRate, Certificate]], at_most: float, confidence: float, without_verdict: int
) -> Iterator[str]:
    """The table in sentences."""
    for rate, certificate in rows:
        cell = rate.cell
        whose = f"{cell.tenant}, {cell.generator or 'unknown generator'}" if cell.generator is not None else cell.tenant
        yield f"{console.printable(whose)} ({_short(cell.model)}, {_short(cell.policy)}): {_sentence(certificate)}"
    if without_verdict:
        yield f"audits skipped because the topic no longer holds their verdict: {without_verdict:,}"
    yield (
        f"Each interval covers the true share at all times with a probability of {confidence:.0%}. The bound is that "
        f"at most {at_most:.2%} of the passed images are bad. Both hold for one row; of many rows, some will be wrong."
    )


def _sentence(certificate: Certificate) -> str:
    bound = f"at most {certificate.at_most:.2%} of the passed images are bad"
    match certificate.state:
        case "certified":
            return f"certified that {bound}"
        case "violated":
            return f"the bound is violated: it is not true that {bound}"
        case "undecided" if certificate.more_audits is None:
            return "the audits are inconclusive, and no reachable number of clean audits would certify the bound"
        case "undecided":
            return f"not certified yet; {certificate.more_audits:,} more audits without a bad image would certify it"
