"""The frozen backbone's maps of every image, computed once: training needs nothing else.

Each image is kept in several variants: as it is, changed in ways that do not change its quality but hide what tells one
generator from another (framing, scale, tone, JPEG tables), and damaged, milder and worse.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
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
from worker.model.backbone import EfficientNetLite0
from worker.model.damage import Pixels, damage
from worker.model.data import Example
from worker.model.network import GRID, MAP_CHANNELS, VIEWS, WINDOW
from worker.model.onnx_graph import maps_graph

MAX_PIXELS = 64_000_000
DAMAGE_SEED = 1000
WINDOWS = sum(view.crops for view in VIEWS.values())

Maps = NDArray[np.float16]
"""[images, WINDOWS, MAP_CHANNELS, GRID, GRID]"""


class MapStore:
    """Computes maps through OpenVINO in the precision of serving, and keeps them in `folder`.

    Files are named by a digest of weights and images, so that a run that was cut off goes on where it was.
    """

    def __init__(
        self, backbone: EfficientNetLite0, examples: Sequence[Example], folder: Path, progress: Progress, workers: int
    ) -> None:
        graph = maps_graph(backbone)
        self._contents = [example.image.read_bytes() for example in examples]
        self._digests = [hashlib.sha256(content).digest() for content in self._contents]
        self._key = hashlib.sha256(graph + b"".join(self._digests)).hexdigest()[:16]
        self._folder, self._progress, self._workers = folder, progress, workers
        options = {"NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers}
        core = ov.Core()
        self._engine = core.compile_model(core.read_model(graph), "CPU", options)

    def varied(self, variant: int) -> Maps:
        """Maps of all examples in one variant; variant 0 is the image as it is."""

        def change(pixels: Pixels, random: np.random.Generator) -> tuple[Pixels, ...]:
            return (vary(pixels, random) if variant else pixels,)

        [maps] = self._maps((f"{variant}",), change, variant)
        return maps

    def damaged(self) -> tuple[Maps, Maps]:
        """Maps of all examples under damage of a kind drawn for each: milder, and worse."""
        mild, worse = self._maps(("mild", "worse"), damage, DAMAGE_SEED)
        return mild, worse

    def _maps(
        self,
        names: tuple[str, ...],
        change: Callable[[Pixels, np.random.Generator], tuple[Pixels, ...]],
        seed: int,
    ) -> list[Maps]:
        files = [self._folder / f"maps-{self._key}-{name}.npy" for name in names]
        if not all(file.is_file() for file in files):
            partial = [file.with_suffix(".partial") for file in files]
            shape = (len(self._contents), WINDOWS, MAP_CHANNELS, GRID, GRID)
            written = [open_memmap(file, "w+", np.float16, shape) for file in partial]
            task = self._progress.add_task(f"maps: {', '.join(names)}", total=len(self._contents))

            def run(row: int) -> None:
                pixels = decode(self._contents[row], max_pixels=MAX_PIXELS)
                random = np.random.default_rng([seed, *self._digests[row][:8]])
                for maps, changed in zip(written, change(pixels, random), strict=True):
                    maps[row] = self._infer(changed)
                self._progress.advance(task)

            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(run, range(len(self._contents))))
            for maps, file, target in zip(written, partial, files, strict=True):
                maps.flush()
                file.rename(target)
        return [np.load(file, mmap_mode="r") for file in files]

    def _infer(self, pixels: Pixels) -> NDArray[np.float32]:
        views = make_views(pixels, VIEWS)
        windows = np.concatenate([views[name].reshape(-1, WINDOW, WINDOW, 3) for name in VIEWS])
        request = self._engine.create_infer_request()
        request.infer([windows])
        maps: NDArray[np.float32] = request.get_output_tensor().data
        return maps


def vary(pixels: Pixels, random: np.random.Generator) -> Pixels:
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
