"""What it costs to decode in a process of its own, beside a thread: by format and size, and for the whole pipeline.

    python -m ops.benchmarks.decoder_processes_benchmark [--short] [--out FOLDER]

Processor time of both processes together, which counts what they do and not what the machine does beside them. Each
round decodes every image on a thread and in a process, one right after the other; a ratio is the median of the rounds'.
The pipeline is the embedded one with its default model on the CPU, over JPEGs of 512 x 512 pixels, with
`images.decoder_processes` off, auto and all in turn.
"""

import io
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pillow_heif
import pylibjxl
from PIL import Image
from rich.table import Table

from ops.benchmarks.pipeline_benchmark import distinct_jpegs, embedded_rate
from ops.benchmarks.results import Options, console, machine, option_parser, publish
from worker.charts import bar_chart
from worker.images.decode import DECODE_MEMORY, DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.decoder_process import DecoderProcess
from worker.samples.sample import SAMPLE_IMAGES
from worker.scoring.model import load_model
from worker.settings import FileSettings, ImageSettings, Settings
from worker.settings.image_format import ImageFormat

SIDES: Final = (512, 1024, 2048)
ROUNDS: Final = 11
PIPELINE_IMAGES: Final = 300
PIPELINE_ROUNDS: Final = 3
ALTERNATIVES: Final[tuple[Literal["off", "auto", "all"], ...]] = ("off", "auto", "all")
GOAL: Final = 1.05
"""What the pipeline may take beside threads alone."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of processor time for one image; `ratio` of process to thread."""

    format: str
    side: int
    bytes: int
    thread_ms: float
    process_ms: float
    ratio: float


def images(sides: Sequence[int]) -> dict[tuple[str, int], bytes]:
    """A photograph in each format and size."""
    photograph = Image.open(sorted(SAMPLE_IMAGES.glob("*.jpg"))[0]).convert("RGB")
    made = {}
    for side in sides:
        picture = photograph.resize((side, side), Image.Resampling.LANCZOS)
        for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF"):
            file = io.BytesIO()
            picture.save(file, name)
            made[name, side] = file.getvalue()
        file = io.BytesIO()
        pillow_heif.from_pillow(picture).save(file)
        made["HEIC", side] = file.getvalue()
        made["JPEG XL", side] = pylibjxl.encode(np.asarray(picture))
    return made


def measure(files: Mapping[tuple[str, int], bytes], rounds: int) -> list[Cost]:
    """Every file on a thread and in a process."""
    settings = ImageSettings(formats=tuple(ImageFormat))
    limits, views = DecodeLimits.of(settings), load_model(Settings().model).manifest.views
    thread = ThreadDecoder(limits, views)
    process = DecoderProcess(limits, views, DECODE_MEMORY, max_bytes=settings.max_bytes, memory_bytes=2**32)
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in files}
    for number in range(rounds + 1):
        for key, data in files.items():
            on_thread = _used(lambda data=data: thread.decode(data))  # type: ignore[misc]
            before = _clock_of(process.pid)
            ours = _used(lambda data=data: process.decode(data, wants_pixels=False))  # type: ignore[misc]
            if number > 0:  # the first round warms caches
                seconds[key].append((on_thread, ours + _clock_of(process.pid) - before))
    process.close()
    return [
        Cost(
            name,
            side,
            len(files[name, side]),
            round(1000 * statistics.median(thread for thread, _ in found), 2),
            round(1000 * statistics.median(ours for _, ours in found), 2),
            round(statistics.median(ours / thread for thread, ours in found), 2),
        )
        for (name, side), found in seconds.items()
    ]


def _used(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _clock_of(pid: int) -> float:
    """Processor seconds of another process: its clock has this number (man 3 clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def measure_pipeline(count: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time for one image, by `images.decoder_processes`, round by round."""
    found: dict[str, list[float]] = {name: [] for name in ALTERNATIVES}
    with tempfile.TemporaryDirectory() as temporary:
        jpegs = Path(temporary) / "jpegs"
        jpegs.mkdir()
        paths = distinct_jpegs(jpegs, count)
        for number in range(rounds):
            turn = number % len(ALTERNATIVES)
            for name in ALTERNATIVES[turn:] + ALTERNATIVES[:turn]:
                settings = Settings(files=FileSettings(roots=(jpegs,)), images=ImageSettings(decoder_processes=name))
                before = _all_used()
                embedded_rate(paths, settings, Path(temporary) / f"{name}{number}")
                found[name].append(1000 * (_all_used() - before) / count)
                console.print(f"round {number + 1}: {name}: {found[name][-1]:.1f} ms")
    return found


def _all_used() -> float:
    """By this process and by the decoder processes that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(options: Options) -> None:
    sides, rounds = (SIDES[:1], 1) if options.short else (SIDES, ROUNDS)
    costs = measure(images(sides), rounds)
    count, turns = (20, 1) if options.short else (PIPELINE_IMAGES, PIPELINE_ROUNDS)
    pipeline = measure_pipeline(count, turns)
    beside = {
        name: round(statistics.median(ours / off for ours, off in zip(values, pipeline["off"], strict=True)), 3)
        for name, values in pipeline.items()
    }
    report: dict[str, Any] = {
        "measured_on": machine("pillow", "pillow-heif", "pylibjxl", "numpy", "openvino"),
        "rounds": rounds,
        "costs": [asdict(cost) for cost in costs],
        "pipeline": {
            "images": count,
            "rounds": turns,
            "ms_an_image": {name: round(statistics.median(values), 2) for name, values in pipeline.items()},
            "ratio": beside,
            "goal": GOAL,
        },
    }
    publish("decoder_processes", options, report, [table(costs), pipeline_table(report["pipeline"])], plot(costs))


def table(costs: Sequence[Cost]) -> Table:
    drawn = Table(title="Processor time of decoding and views, ms", title_justify="left")
    for column in ("format", "side", "KB", "thread", "process", "ratio"):
        drawn.add_column(column, justify="left" if column == "format" else "right")
    for cost in costs:
        drawn.add_row(
            cost.format,
            str(cost.side),
            f"{cost.bytes / 1000:.0f}",
            f"{cost.thread_ms:.1f}",
            f"{cost.process_ms:.1f}",
            f"{cost.ratio:.2f}",
        )
    return drawn


def pipeline_table(pipeline: Mapping[str, Any]) -> Table:
    drawn = Table("images.decoder_processes", "ms an image", "ratio", "goal", title="The whole pipeline")
    for name in ALTERNATIVES:
        goal = "" if name == "off" else f"{GOAL:.2f}"
        drawn.add_row(name, f"{pipeline['ms_an_image'][name]:.1f}", f"{pipeline['ratio'][name]:.3f}", goal)
    return drawn


def plot(costs: Sequence[Cost]) -> str:
    values = {f"{cost.format} {cost.side} x {cost.side}": cost.ratio for cost in costs}
    return bar_chart("Decoding in a process beside a thread", "ratio of processor time", values)


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
