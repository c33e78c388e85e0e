"""`sluice trust`: estimates how many passed images are bad."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from schemas import AuditPlan, Decision, Verdict
from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.stream import open_stream
from worker.cli.trust_drift import drift, sentences
from worker.cli.trust_records import read_records, require_readable, settled_audits
from worker.trust.certificate import Certificate
from worker.trust.drawing import AuditDraws
from worker.trust.drift import DriftComparison, DriftCounts, DriftWindows, alarmed
from worker.trust.misses import MissCell, MissRate, MissRates, miss_rates

app = typer.Typer(
    name="trust", help="Estimate how many passed images are bad, with confidence intervals.", no_args_is_help=True
)

_STYLES = {"certified": "green", "withdrawn": "yellow", "undecided": "yellow", "violated": "bold red"}


app.command()(drift)

Withdrawn = Mapping[MissCell, tuple[str, ...]]
"""Why the certificate of a cell says little of the images to come: what has changed."""


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

    Audits are weighted by the probability with which they were drawn. The interval is for one look at these days; the
    certificate stays valid however often you look.

    Exit code: 0, 1 when a record could not be read, 2 for wrong options. A violated bound is not an error.
    """
    for name, value in (("--at-most", at_most), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise UsageError(f"{name} {value:g}: expected a number between 0 and 1")
    place = find_place(config, data)
    topics = place.settings.kafka.topics
    since = datetime.now(UTC) - timedelta(days=days) if days is not None else None
    unreadable = Counter[str]()
    changes = DriftCounts(DriftWindows.ending(datetime.now(UTC)))
    with closing(open_stream(place)) as stream:
        draws = AuditDraws(
            read_records(stream, topics.audit_plans, AuditPlan, unreadable), place.settings.review.audit_share
        )
        audits = settled_audits(read_records(stream, topics.decisions, Decision, unreadable))
        verdicts = (
            verdict
            for verdict in _counted(read_records(stream, topics.verdicts, Verdict, unreadable), changes)
            if since is None or verdict.judged_at >= since
        )
        found = miss_rates(verdicts, audits, draws, at_most=at_most, by_generator=by_generator, confidence=confidence)
    rows = found.rates if history else found.in_force()
    withdrawn = _withdrawn(rows, changes.compare())
    if as_json:
        left_out = {"audits_without_verdict": found.without_verdict, "audits_not_drawn": found.not_drawn}
        print(json.dumps({"rates": [_document(rate, withdrawn) for rate in rows], **left_out}))
    elif not rows:
        console.out.print("no image has passed yet, so there is nothing to audit", markup=False)
    else:
        console.out.print(_table(rows, withdrawn, by_generator=by_generator))
        for line in _explanations(rows, withdrawn, found, at_most, confidence, windowed=days is not None):
            console.out.print(line, markup=False, soft_wrap=True)
    require_readable(unreadable)


def _counted(verdicts: Iterable[Verdict], changes: DriftCounts) -> Iterator[Verdict]:
    for verdict in verdicts:
        changes.add(verdict)
        yield verdict


def _withdrawn(rows: Sequence[MissRate], changes: Sequence[DriftComparison]) -> Withdrawn:
    found = {}
    for rate in rows:
        cell = rate.cell
        alarms = alarmed(changes, cell.tenant, cell.model, cell.generator)
        if rate.certificate.state == "certified" and alarms:
            found[cell] = tuple(sentence for each in alarms for sentence in sentences(each))
    return found


def _document(rate: MissRate, withdrawn: Withdrawn) -> dict[str, object]:
    times = {"first_at": rate.first_at.isoformat(), "last_at": rate.last_at.isoformat()}
    return {**asdict(rate), **times, "reason": rate.reason, "withdrawn_because": list(withdrawn.get(rate.cell, ()))}


def _table(rows: Sequence[MissRate], withdrawn: Withdrawn, *, by_generator: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("tenant", *(("generator",) if by_generator else ()), "model", "policy"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("passed", "audited", "bad", "share", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for rate in rows:
        cell, found = rate.cell, rate.estimate
        generator = (cell.generator or "unknown",) if by_generator else ()
        names = (cell.tenant, *generator, _short(cell.model), _short(cell.policy))
        table.add_row(
            *(Text(console.printable(name)) for name in names),
            f"{rate.passed:,}",
            f"{rate.audited:,}",
            f"{rate.missed:,}",
            "-" if found.share is None else f"{found.share:.2%}",
            "-" if found.share is None else f"{100 * found.interval.low:.2f}-{found.interval.high:.2%}",
            _state(rate, withdrawn),
        )
    return table


def _state(rate: MissRate, withdrawn: Withdrawn) -> Text:
    state = "withdrawn" if rate.cell in withdrawn else rate.certificate.state
    return Text(state, style=_STYLES[state])


def _short(digest: str) -> str:
    """The first characters of a digest, enough to distinguish models and policies."""
    return digest.removeprefix("sha256:")[:8]


def _explanations(
    rows: Sequence[MissRate],
    withdrawn: Withdrawn,
    found: MissRates,
    at_most: float,
    confidence: float,
    *,
    windowed: bool,
) -> Iterator[str]:
    """What the table says, in sentences."""
    for rate in rows:
        cell = rate.cell
        whose = f"{cell.tenant}, {cell.generator or 'unknown generator'}" if cell.generator is not None else cell.tenant
        yield f"{console.printable(whose)} ({_short(cell.model)}, {_short(cell.policy)}): {_sentence(rate)}"
        if rate.cell in withdrawn:
            yield "  withdrawn, as this holds for the images that passed so far, and those to come may differ:"
            yield from (f"  {sentence}" for sentence in withdrawn[rate.cell])
        if rate.reason is None and rate.not_auditable:
            yield f"  not covered: {rate.not_auditable:,} images that cannot be audited"
    if found.without_verdict and not windowed:
        yield f"audits left out because the topic no longer holds their verdict: {found.without_verdict:,}"
    if found.not_drawn:
        yield f"audits left out because no plan draws them, so their probability is unknown: {found.not_drawn:,}"
    yield (
        f"Each interval covers the share of bad images among those that passed with a probability of {confidence:.0%}, "
        "for one look."
    )
    yield (
        f"The bound is that at most {at_most:.2%} of the images that passed so far are bad. Over all looks, a wrong "
        f"answer to it has a probability of at most {1 - confidence:.0%}."
    )
    yield "Both hold for one row; of many rows, some will be wrong."


def _sentence(rate: MissRate) -> str:
    if rate.reason is not None:
        return rate.reason
    certificate = rate.certificate
    bound = f"at most {certificate.at_most:.2%} of the passed images are bad"
    match certificate.state:
        case "certified":
            return f"certified that {bound}"
        case "violated":
            return f"the bound is violated: it is not true that {bound}{_stricter(rate)}"
        case "undecided":
            return f"{_undecided(certificate)}{_stricter(rate)}"


def _undecided(certificate: Certificate) -> str:
    if certificate.more_audits is None:
        return "the audits decide nothing, and no reachable number of clean audits would certify the bound"
    return f"not certified yet; {certificate.more_audits:,} more audits without a bad image would certify it"


def _stricter(rate: MissRate) -> str:
    if rate.loosest_threshold is None:
        return ""
    return f"; it is certified for images of a quality of at least {rate.loosest_threshold:g}"
