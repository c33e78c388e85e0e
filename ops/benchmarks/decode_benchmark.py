"""How fast encoded images become views, beside plain Pillow doing the same, image by image in the same run.

    python -m ops.benchmarks.decode_benchmark [--short] [--out FOLDER] [--images FOLDER]

Each round times every route over all images, in an order that changes from round to round, so that whatever else the
machine does meets all of them alike. A ratio is the median over the rounds of (Pillow's time / ours) within one round.
"""

import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish, ratios
from worker.charts import bar_chart
from worker.images.decode import decode
from worker.images.views import make_views
from worker.samples.sample import SAMPLE_IMAGES
from worker.view import ViewSpec

ROUNDS = 20

# OpenAI's CLIP, clip.py, _transform: mean and std of the channels in 0..1.
MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)

Route = Callable[[bytes], object]


def _spec(resize: str, crop: str = "center", crops: int = 1) -> ViewSpec:
    return ViewSpec.model_validate(
        {"size": 224, "resize": resize, "crop": crop, "crops": crops, "mean": MEAN.tolist(), "std": STD.tolist()}
    )


CLIP_VIEWS = {"image": _spec("shortest_side")}
LITE_VIEWS = {"coarse": _spec("squash"), "fine": _spec("none", "grid", 4)}


def pillow_decode(data: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow_clip(data: bytes) -> object:
    """One 224 centre crop as uint8."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    short = min(image.size)
    image = image.resize((int(224 * image.width / short), int(224 * image.height / short)), Image.Resampling.BICUBIC)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def pillow_clip_float(data: bytes) -> object:
    """As CLIP's own transform ends: normalised float32. Here the engine does that, on the accelerator."""
    return (np.asarray(pillow_clip(data), np.float32) / 255 - MEAN) / STD


def pillow_lite(data: bytes) -> object:
    """The whole image at 224 and its four corners at native size, as uint8."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    coarse = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    right, bottom = image.width - 224, image.height - 224
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    return coarse, np.stack([np.asarray(image.crop((x, y, x + 224, y + 224))) for x, y in corners])


def ours_decode(data: bytes) -> object:
    return decode(data, max_pixels=64_000_000)


def ours_clip(data: bytes) -> object:
    return make_views(decode(data, max_pixels=64_000_000), CLIP_VIEWS)


def ours_lite(data: bytes) -> object:
    return make_views(decode(data, max_pixels=64_000_000), LITE_VIEWS)


PAIRS: dict[str, tuple[Route, Route]] = {
    "decode only": (pillow_decode, ours_decode),
    "CLIP view, Pillow to float32": (pillow_clip_float, ours_clip),
    "CLIP view, Pillow to uint8": (pillow_clip, ours_clip),
    "mst-lite views, Pillow to uint8": (pillow_lite, ours_lite),
}


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    name: str
    threads: int
    pillow_images_per_second: float
    ours_images_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float


def measure(images: Sequence[bytes], *, rounds: int, threads: int) -> list[DecodeTimes]:
    """Every pair over all images; `ratio_low` and `ratio_high` are the quartiles of the rounds."""
    routes = list(dict.fromkeys(route for pair in PAIRS.values() for route in pair))
    seconds: dict[Route, list[float]] = {route: [] for route in routes}
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds + 1):
            turn = number % len(routes)
            for route in routes[turn:] + routes[:turn]:
                started = time.perf_counter()
                for _ in pool.map(partial(_run, route), images):
                    pass
                if number > 0:  # the first round warms caches and threads
                    seconds[route].append(time.perf_counter() - started)
    return [
        _result(name, threads, len(images), seconds[theirs], seconds[ours]) for name, (theirs, ours) in PAIRS.items()
    ]


def _run(route: Route, image: bytes) -> None:
    """Without the result, which would be kept until the round is over."""
    route(image)


def _result(name: str, threads: int, count: int, theirs: list[float], ours: list[float]) -> DecodeTimes:
    speedups = ratios([count / seconds for seconds in ours], [count / seconds for seconds in theirs])
    low, middle, high = statistics.quantiles(speedups, n=4)
    return DecodeTimes(
        name=name,
        threads=threads,
        pillow_images_per_second=round(count / statistics.median(theirs), 1),
        ours_images_per_second=round(count / statistics.median(ours), 1),
        ratio=round(middle, 2),
        ratio_low=round(low, 2),
        ratio_high=round(high, 2),
    )


def table(results: Sequence[DecodeTimes]) -> Table:
    drawn = Table(title="Encoded image to views, images a second", title_justify="left")
    drawn.add_column("route", no_wrap=True)
    for column in ("threads", "Pillow/s", "Sluice/s", "ratio", "quartiles"):
        drawn.add_column(column, justify="right")
    for result in results:
        drawn.add_row(
            result.name,
            str(result.threads),
            f"{result.pillow_images_per_second:.0f}",
            f"{result.ours_images_per_second:.0f}",
            f"{result.ratio:.2f}",
            f"{result.ratio_low:.2f} to {result.ratio_high:.2f}",
        )
    return drawn


def run(options: Options, folder: Path) -> None:
    images = [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]
    if not images:
        raise SystemExit(f"error: no *.jpg in {folder}; name a folder of JPEGs with --images")
    rounds = 2 if options.short else ROUNDS
    results = [
        result
        for threads in sorted({1, len(os.sched_getaffinity(0))})
        for result in measure(images, rounds=rounds, threads=threads)
    ]
    report = {
        "measured_on": machine("pillow", "numpy"),
        "images": len(images),
        "rounds": rounds,
        "results": [asdict(result) for result in results],
    }
    publish("decode", options, report, [table(results)], plot(results))


def plot(results: Sequence[DecodeTimes]) -> str:
    values = {f"{each.name}, threads: {each.threads}": each.ratio for each in results}
    return bar_chart("Encoded image to views", "times as fast as plain Pillow", values)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--images", type=Path, default=SAMPLE_IMAGES, help="a folder of JPEGs (the samples that ship)")
    given = parser.parse_args()
    run(Options(given.short, given.out), given.images)


if __name__ == "__main__":
    main()
