"""Gives mutated image files of every format to a decoder process.

    python -m ops.drills.mutations [--count N] [--seed S] [--out FOLDER]

Each file must end in pixels or in an ImageError with a reason, within a second of processor time; the process must not
die, and its memory must stay flat: what it holds after the last quarter of the files is compared with what it held
after the second. Writes mutations.json and mutations.md.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ops.drills.mutated_files import mutated, originals
from worker.images.decode import DecodeLimits
from worker.images.decoder_process import DecoderDied, DecoderProcess
from worker.images.errors import ImageError
from worker.images.memory import MemoryBudget
from worker.settings.image_format import ImageFormat
from worker.view import ViewSpec

COUNT: Final = 10_000
MOST_SECONDS: Final = 1.0
MOST_GROWTH: Final = 48 * 1024 * 1024
_TICK: Final = os.sysconf("SC_CLK_TCK")
_VIEWS: Final = {
    "whole": ViewSpec(size=224, resize="shortest_side", mean=(0, 0, 0), std=(1, 1, 1)),
    "detail": ViewSpec(size=224, resize="none", crop="grid", crops=4, mean=(0, 0, 0), std=(1, 1, 1)),
}


@dataclass(slots=True)
class Row:
    """What the files of one format ended in. Times are of processors, in seconds; memory is the process's, in bytes."""

    files: int = 0
    pixels: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory_half: int = 0
    memory_end: int = 0

    @property
    def is_good(self) -> bool:
        grown = self.memory_end - self.memory_half
        return not self.deaths and self.slowest <= MOST_SECONDS and grown <= MOST_GROWTH


def run(
    files: Mapping[str, bytes], count: int, seed: int, progress: Callable[[str], None] = lambda _line: None
) -> dict[str, Row]:
    """Mutates these files `count` times in all, each as often, and decodes the results."""
    rows: dict[str, Row] = {}
    for number, (name, data) in enumerate(files.items()):
        rng = random.Random(f"{seed} {name}")  # made to be repeated
        wanted = count // len(files) + (number < count % len(files))
        rows[name] = _decode_all((mutated(data, rng) for _ in range(wanted)), wanted)
        progress(f"{name}: {rows[name].files} files, {rows[name].pixels} decoded, {len(rows[name].deaths)} deaths")
    return rows


def _decode_all(files: Iterator[bytes], count: int) -> Row:
    row = Row()
    reasons: Counter[str] = Counter()
    process = _start()
    for number, data in enumerate(files):
        row.files += 1
        before = _processor_seconds(process.pid)
        try:
            process.decode(data, wants_pixels=True)
            row.pixels += 1
        except ImageError as error:
            reasons[error.reason.value] += 1
        except DecoderDied as death:
            row.deaths.append(f"{death}: {data[:64].hex()}")
            process.close()
            process = _start()
            continue
        row.slowest = max(row.slowest, _processor_seconds(process.pid) - before)
        if number == count // 2:
            row.memory_half = _resident_bytes(process.pid)
    row.memory_end = _resident_bytes(process.pid)
    row.reasons = dict(reasons.most_common())
    process.close()
    return row


def _start() -> DecoderProcess:
    limits = DecodeLimits(max_pixels=100_000_000, formats=tuple(ImageFormat))
    return DecoderProcess(limits, _VIEWS, MemoryBudget(2**31), max_bytes=2**20, memory_bytes=2**31)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def write(rows: Mapping[str, Row], seed: int, folder: Path) -> None:
    when = datetime.now(UTC).date().isoformat()
    total = sum(row.files for row in rows.values())
    lines = [
        "# Mutated image files",
        "",
        f"`python -m ops.drills.mutations --count {total} --seed {seed}`, {when}. Each ends in pixels or a reason.",
        "The process that decodes must not die, nor take more than a second of processor time for a file, nor grow.",
        "",
        "Four of five PNGs are broken inside of their chunks and have right checksums. Few JPEG XL files are decoded:",
        "the end of each entropy-coded part shows that something before it was changed.",
        "",
        "| format | files | decoded | refused as | deaths | slowest (CPU s) | memory at half / end (MB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        refused = ", ".join(f"{reason} {count}" for reason, count in row.reasons.items())
        lines.append(
            f"| {name} | {row.files} | {row.pixels} | {refused} | {len(row.deaths)} | {row.slowest:.2f} | "
            f"{row.memory_half / 1e6:.0f} / {row.memory_end / 1e6:.0f} |"
        )
    (folder / "mutations.md").write_text("\n".join(lines) + "\n")
    report = {"when": when, "seed": seed, "formats": {name: asdict(row) for name, row in rows.items()}}
    (folder / "mutations.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.drills.mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="files in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write mutations.json and mutations.md")
    options = parser.parse_args()
    began = time.monotonic()
    rows = run(originals(), options.count, options.seed, lambda line: print(line, flush=True))
    print(f"{time.monotonic() - began:.0f} s")
    if options.out:
        write(rows, options.seed, options.out)
    return 0 if all(row.is_good for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
