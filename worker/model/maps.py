"""The frozen backbone's maps of every image, computed once: training needs nothing else.

Each image is kept in several variants: as it is, and changed in ways that do not change its quality but hide what tells
one generator from another (framing, scale, tone, JPEG tables).
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from rich.progress import Progress

from worker.images.decode import decode
from worker.images.views import make_views
from worker.model.data import Example
from worker.model.network import GRID, MAP_CHANNELS, VIEWS, WINDOW, MstLite
from worker.model.onnx_graph import maps_graph

MAX_PIXELS = 64_000_000
WINDOWS = sum(view.crops for view in VIEWS.values())

Maps = NDArray[np.float16]
"""[images, WINDOWS, MAP_CHANNELS, GRID, GRID]"""


def compute_maps(
    network: MstLite, examples: Sequence[Example], variant: int, folder: Path, progress: Progress, workers: int
) -> Maps:
    """The maps of one variant of all examples, through OpenVINO in the precision of serving.

    They are kept in `folder` under a digest of weights and images, so that a run that was cut off goes on where it was.
    Variant 0 is the image as it is.
    """
    contents = [example.image.read_bytes() for example in examples]
    graph = maps_graph(network)
    digests = [hashlib.sha256(content).digest() for content in contents]
    key = hashlib.sha256(graph + b"".join(digests)).hexdigest()[:16]
    file = folder / f"maps-{key}-{variant}.npy"
    if not file.is_file():
        partial = file.with_suffix(".partial")
        shape = (len(examples), WINDOWS, MAP_CHANNELS, GRID, GRID)
        maps = open_memmap(partial, "w+", np.float16, shape)
        task = progress.add_task(f"maps of variant {variant}", total=len(examples))
        core = ov.Core()
        options = {"NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers}
        compiled = core.compile_model(core.read_model(graph), "CPU", options)

        def run(row: int) -> None:
            pixels = decode(contents[row], max_pixels=MAX_PIXELS)
            if variant:
                pixels = vary(pixels, np.random.default_rng([variant, *digests[row][:8]]))
            views = make_views(pixels, VIEWS)
            windows = np.concatenate([views[name].reshape(-1, WINDOW, WINDOW, 3) for name in VIEWS])
            request = compiled.create_infer_request()
            request.infer([windows])
            maps[row] = request.get_output_tensor().data
            progress.advance(task)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(len(examples))))
        maps.flush()
        partial.rename(file)
    computed: Maps = np.load(file)
    return computed


def vary(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """The image with, each by chance: mirrored, trimmed by up to an eighth, rescaled by up to 8 %, its tone moved by up
    to 8 %, saved as JPEG of quality 75 to 95."""
    image = Image.fromarray(pixels)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    kept = random.uniform(0.88, 1)
    width, height = round(image.width * kept), round(image.height * kept)
    left, top = (int(random.integers(slack + 1)) for slack in (image.width - width, image.height - height))
    image = image.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        scale = random.uniform(0.92, 1.08)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        for tone in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = tone(image).enhance(random.uniform(0.92, 1.08))
    if random.random() < 0.5:
        saved = io.BytesIO()
        image.save(saved, "JPEG", quality=int(random.integers(75, 96)))
        image = Image.open(saved).convert("RGB")
    return np.asarray(image)
