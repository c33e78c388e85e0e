"""`python -m ops.drills.fuzz`: broken inputs at every border, and what each ends in.

Events, S3 notifications and CloudEvents go through a whole embedded worker, policies and settings through their
loaders, Redis answers through the cache and the client that reads them. Every input must end in a verdict, a dead
letter or a named error: no crash, no hang, bounded memory. The inputs follow from `--seed`. With `--out` the table is
written as `fuzz.md` and `fuzz.json`, and each input that ended in something else as a file below `fuzz-findings/`.
"""

import argparse
import json
import logging
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from ops.benchmarks.results import machine
from ops.drills.fuzz_targets import FuzzOutcome, fuzz_policies, fuzz_records, fuzz_redis, fuzz_settings

GROWTH_LIMIT_MB: Final = 600
"""How much the process may grow, the model and its engine included."""

Target = Callable[[int, random.Random, Path], FuzzOutcome]
TARGETS: Final[Mapping[str, Target]] = {
    "events": lambda count, rng, folder: fuzz_records("event", count, rng, folder),
    "S3 notifications": lambda count, rng, folder: fuzz_records("notification", count, rng, folder),
    "CloudEvents": lambda count, rng, folder: fuzz_records("cloudevent", count, rng, folder),
    "policies": lambda count, rng, _: fuzz_policies(count, rng),
    "settings": fuzz_settings,
    "Redis answers": lambda count, rng, _: fuzz_redis(count, rng),
}


def run(count: int, seed: int, targets: Mapping[str, Target]) -> list[dict[str, Any]]:
    """A row for each target."""
    rows = []
    for name, target in targets.items():
        memory, used, started = _peak_mb(), time.process_time(), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = target(count, random.Random(f"{seed}-{name}"), Path(folder))
        growth = _peak_mb() - memory
        if growth > GROWTH_LIMIT_MB:
            outcome.find(f"the process grew by {growth} MB", name)
        rows.append(
            {
                "inputs": name,
                "count": count,
                "ended": dict(outcome.ended.most_common()),
                "findings": outcome.findings,
                "slowest_processor_seconds": round(outcome.slowest_seconds, 3),
                "memory_growth_mb": growth,
                "processor_seconds": round(time.process_time() - used, 1),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        print(f"{name}: {count:,} inputs, {len(outcome.findings)} findings", file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| inputs | number | ended in | anything else | slowest, processor s | memory growth, MB | processor s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ended = ", ".join(f"{number:,} {what}" for what, number in row["ended"].items())
        lines.append(
            f"| {row['inputs']} | {row['count']:,} | {ended} | {len(row['findings'])} | "
            f"{row['slowest_processor_seconds']:.3f} | {row['memory_growth_mb']} | {row['processor_seconds']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.drills.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(TARGETS), action="append", help="only these kinds")
    parser.add_argument("--out", type=Path, help="write the table and the findings into this folder")
    options = parser.parse_args()
    quiet()
    rows = run(options.count, options.seed, {name: TARGETS[name] for name in options.only or TARGETS})
    print(table(rows))
    findings = [finding for row in rows for finding in row["findings"]]
    for what, value in findings[:20]:
        print(f"{what}\n    {value[:300]}", file=sys.stderr)
    if options.out is not None:
        _write(options.out, options.seed, rows)
    return 1 if findings else 0


def quiet() -> None:
    """What the worker logs about 30,000 broken events tells nothing here."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _write(folder: Path, seed: int, rows: list[dict[str, Any]]) -> None:
    on = machine("pydantic", "redis", "hiredis", "pyyaml")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fuzz.json").write_text(json.dumps({"seed": seed, "measured_on": on, "rows": rows}, indent=2) + "\n")
    (folder / "fuzz.md").write_text(
        f"# Fuzzing\n\nWritten by `python -m ops.drills.fuzz --seed {seed} --out ops/drills` on {on['when']}, "
        f"{on['processors']} processors ({on['processor'] or on['machine']}), Python {on['python']}.\n\n{table(rows)}"
    )
    findings = [finding for row in rows for finding in row["findings"]]
    for number, (what, value) in enumerate(findings):
        path = folder / "fuzz-findings" / f"{number:03d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{what}\n{value}\n")


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
