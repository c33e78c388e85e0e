"""What starting costs: the processor time of `sluice --help`, of one scored image, and until the first verdict.

    python -m ops.benchmarks.first_second_benchmark [--beside CHECKOUT] [--short] [--out FOLDER]

Every run is a process of its own, its children included. With `--beside`, another checkout of Sluice is measured too,
in turns, so that both see the same machine. One run of each warms the file cache and the cache of compiled graphs.
"""

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish
from worker.charts import bar_chart

ROUNDS = 5
IMAGE = "AttnGAN_normal_021.jpg"
HERE = Path(__file__).parents[2]
SLUICE = (sys.executable, "-P", "-c", "from worker.cli.main import app; app()")
LONGEST_SECONDS = 60.0
"""A first verdict that takes longer is an error."""


@dataclass(frozen=True, slots=True)
class StartUp:
    """A command's processor time, in seconds: the median and the least of the rounds."""

    command: str
    checkout: str
    median_cpu_seconds: float
    least_cpu_seconds: float


def cpu_of(arguments: tuple[str, ...], checkout: Path) -> float:
    """Runs a command to its end; the processor time of it and its children."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    process = os.posix_spawn(SLUICE[0], [*SLUICE, *arguments], _environment(checkout), file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError(f"sluice {' '.join(arguments)} in {checkout} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


def cpu_to_first_verdict(checkout: Path) -> float:
    """Starts the embedded worker on a log with one event; its processor time when the verdict is in the log."""
    with tempfile.TemporaryDirectory() as folder:
        submit = [*SLUICE, "submit", str(_image(checkout)), "--data", folder]
        subprocess.run(submit, env=_environment(checkout), check=True, capture_output=True)
        up = [*SLUICE, "up", "--embedded", "--data", folder]
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            process = subprocess.Popen(up, env=_environment(checkout), stdout=nowhere, stderr=nowhere)
        try:
            return _watch(process.pid, Path(folder) / "log.sqlite")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=LONGEST_SECONDS)


def _watch(pid: int, log: Path) -> float:
    deadline = time.monotonic() + LONGEST_SECONDS
    query = "SELECT count(*) FROM records JOIN partitions ON partition = id WHERE topic LIKE '%verdicts%'"
    while time.monotonic() < deadline:
        time.sleep(0.01)
        used = _used(pid)
        with sqlite3.connect(f"file:{log}?mode=ro", uri=True, timeout=5) as database:
            if database.execute(query).fetchone()[0]:
                return used
    raise RuntimeError(f"no verdict in {log} within {LONGEST_SECONDS:.0f} s")


def _used(pid: int) -> float:
    """The processor time of a process that runs (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment(checkout: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


def _image(checkout: Path) -> Path:
    return next(checkout.glob(f"worker/**/samples/images/{IMAGE}"))


COMMANDS: Mapping[str, Callable[[Path], float]] = {
    "--help": lambda checkout: cpu_of(("--help",), checkout),
    "score one image": lambda checkout: cpu_of(("score", str(_image(checkout))), checkout),
    "up --embedded, first verdict": cpu_to_first_verdict,
}


def measure(options: Options, checkouts: Mapping[str, Path]) -> list[StartUp]:
    """Every command in every checkout, in turns."""
    starts = []
    for command, run_once in COMMANDS.items():
        used: dict[str, list[float]] = {name: [] for name in checkouts}
        for number in range(1 + (1 if options.short else ROUNDS)):
            for name, checkout in checkouts.items():
                seconds = run_once(checkout)
                if number:  # the first warms up
                    used[name].append(seconds)
        starts += [StartUp(command, name, round(statistics.median(s), 3), round(min(s), 3)) for name, s in used.items()]
    return starts


def run(options: Options, beside: Path | None = None) -> None:
    checkouts = {"here": HERE} if beside is None else {"beside": beside.resolve(), "here": HERE}
    starts = measure(options, checkouts)
    table = Table("command", "checkout", "median CPU s", "least CPU s", title="What starting costs")
    table.columns[2].justify = table.columns[3].justify = "right"
    for start in starts:
        table.add_row(
            start.command, start.checkout, f"{start.median_cpu_seconds:.2f}", f"{start.least_cpu_seconds:.2f}"
        )
    report = {"measured_on": machine("typer", "openvino", "pydantic"), "starts": [asdict(start) for start in starts]}
    figures = {f"{start.command} ({start.checkout})": start.median_cpu_seconds for start in starts}
    publish("first_second", options, report, [table], bar_chart("Starting", "CPU seconds", figures))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout to measure in turns")
    given = parser.parse_args()
    run(Options(given.short, given.out), given.beside)


if __name__ == "__main__":
    main()
