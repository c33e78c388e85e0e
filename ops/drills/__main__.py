"""`make drills`: runs the drills on servers of their own, and writes the table to ops/drills/."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from ops.drills.bench_opening import opened
from ops.drills.drill import AnyDrill
from ops.drills.faults import DRILLS
from ops.drills.stream_bench import DrillError, DrillUnavailable
from ops.drills.table import DrillResult, outcome, write


def run(drill: AnyDrill, repeats: int, folder: Path) -> DrillResult:
    """Runs one drill on servers of its own. Raises DrillUnavailable where the machine lacks what it needs."""
    folder.mkdir()
    with opened(drill, folder) as bench:
        failure = None
        try:
            drill.run(bench, repeats)
            bench.finish()
        except DrillError as error:
            failure = str(error)
        return outcome(drill, repeats, bench, failure)


def main() -> int:
    """Exit code 0 when each drill was run and each of its events was judged exactly once."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", metavar="DRILL", help="the drills to run (default: all)")
    parser.add_argument("--times", type=int, help="how often each fault is made (default: as the drill says)")
    parser.add_argument("--out", type=Path, help="the folder for drills.json and drills.md (default: no files)")
    parser.add_argument("--logs", type=Path, help="a new folder that keeps the workers' and servers' logs")
    options = parser.parse_args()
    known = {drill.name: drill for drill in DRILLS}
    if unknown := set(options.drills) - set(known):
        parser.error(f"no such drill: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows: list[DrillResult] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sluice-drills-") as temporary:
        scratch = options.logs or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        for name in options.drills or known:
            repeats = options.times or known[name].repeats
            print(f"{name}: {known[name].what} {repeats} times ...", flush=True)
            began = time.monotonic()
            try:
                row = run(known[name], repeats, scratch / name)
            except DrillUnavailable as error:
                print(f"  not run: {error}", flush=True)
                left_out.append(name)
                continue
            rows.append(row)
            print(
                f"  {row.events} events, {row.verdicts} verdicts, {row.lost} lost, {row.twice} twice, "
                f"{row.unseen} unseen, recovery {list(row.recovery_seconds)} s ({time.monotonic() - began:.0f} s)"
                + "".join(f"\n  {note}" for note in row.notes)
                + (f"\n  ended early: {row.failure}" if row.failure else ""),
                flush=True,
            )
            if options.out:
                write(rows, options.out)  # after each drill: a long run that is stopped keeps what it has
    return 0 if all(row.kept_the_promise for row in rows) and not left_out else 1


if __name__ == "__main__":
    sys.exit(main())
