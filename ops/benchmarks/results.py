"""Shared by all benchmarks: options, a CPU clock, and printing and storing results."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from os import sched_getaffinity
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(width=120, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Options:
    """`short`: little enough to see that the benchmark works; its figures mean nothing. `out`: a folder."""

    short: bool = False
    out: Path | None = None


def option_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="try whether it works: figures without meaning")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write JSON and plot")
    return parser


@dataclass(frozen=True, slots=True)
class Timed:
    """How long `items` took: by the clock, and of all processors together."""

    items: int
    seconds: float
    processor_seconds: float

    @property
    def per_second(self) -> float:
        return self.items / self.seconds

    @property
    def processor_ms(self) -> float:
        """Of one item. It counts what the process does, and not what the machine does beside it."""
        return 1000 * self.processor_seconds / self.items


def timed(items: int, work: Callable[[], object]) -> Timed:
    started, used = time.perf_counter(), time.process_time()
    work()
    return Timed(items, time.perf_counter() - started, time.process_time() - used)


def side_by_side(threads: int, times: int, work: Callable[[], object]) -> None:
    """Does the work so many times on so many threads. Raises what the work raises."""
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(times)]:
            done.result()


def ratios(rates: Sequence[float], *stages: Sequence[float]) -> list[float]:
    """A rate beside that of the slowest stage in the same round, for each round."""
    return [rate / min(alone) for rate, *alone in zip(rates, *stages, strict=True)]


def median_ratio(rates: Sequence[float], *stages: Sequence[float]) -> float:
    """The median of the rounds' ratios: a busy minute of the machine spoils one of them."""
    return statistics.median(ratios(rates, *stages))


def machine(*packages: str) -> dict[str, Any]:
    """What the figures were measured on, for those who read them later."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": len(sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def publish(name: str, options: Options, report: Mapping[str, Any], tables: Sequence[Table], plot: str) -> None:
    """Prints the tables; with a folder, writes `NAME.json` and `NAME.svg` there."""
    for table in tables:
        console.print(table)
    if options.short:
        console.print("short: these figures mean nothing")
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    written = {"benchmark": name, "short": options.short, **report}
    (options.out / f"{name}.json").write_text(json.dumps(written, indent=2, allow_nan=False) + "\n")
    (options.out / f"{name}.svg").write_text(plot)
    print(f"written: {options.out / name}.json, .svg", file=sys.stderr)
