"""Redrives or drops many dead letters: rate limit, progress and a summary."""

import time
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from worker.cli import console
from worker.dead_letters.actions import AT_ONCE, ActionReport
from worker.dead_letters.letter import Letter

QUIET_SECONDS = 10.0
"""How often progress is printed without a terminal."""


class Rate:
    """Limits the letters per second; None: no limit."""

    def __init__(
        self,
        per_second: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    @property
    def at_once(self) -> int:
        """How many letters to take at once: about one second's worth."""
        return AT_ONCE if self._per_second is None else max(1, min(AT_ONCE, int(self._per_second)))

    def wait(self, count: int) -> None:
        """Waits until that many more letters may be processed."""
        if self._per_second is None:
            return
        now = self._clock()
        if now < self._due:
            self._sleep(self._due - now)
        self._due = max(now, self._due) + count / self._per_second


def act(verb: str, letters: Sequence[Letter], run: Callable[[list[Letter]], ActionReport], rate: Rate) -> ActionReport:
    """Calls `run` for the letters, in parts. Raises what `run` raises; the parts before it stay done."""
    total = ActionReport()
    columns = (SpinnerColumn(), TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as progress:
        task = progress.add_task(verb, total=len(letters))
        for start in range(0, len(letters), rate.at_once):
            part = list(letters[start : start + rate.at_once])
            rate.wait(len(part))
            report = run(part)
            total.done += report.done
            total.already |= report.already
            total.refused |= report.refused
            progress.advance(task, len(part))
            if not console.err.is_terminal and time.monotonic() - said >= QUIET_SECONDS:
                said = time.monotonic()
                console.err.print(f"{verb}: {start + len(part):,} of {len(letters):,}")
    return total


def tell_report(verb: str, report: ActionReport) -> None:
    for letter_id, why in report.refused.items():
        console.err.print(f"{letter_id}: {console.printable(why)}", markup=False, soft_wrap=True)
    done = "redriven" if verb == "redrive" else "dropped"
    said = [f"{len(report.done):,} {done}"]
    if report.already:
        said.append(f"{len(report.already):,} were already redriven or dropped")
    if report.refused:
        said.append(f"{len(report.refused):,} cannot be redriven")
    console.out.print("; ".join(said), markup=False)
