"""What benchmarks feed: the samples that ship, as views, and towers of CLIP's size with random weights."""

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_build.golden import calibration_images, golden_images
from worker.scoring.model import Model, load_model
from worker.view import ViewSpec

Batch = Mapping[str, NDArray[np.uint8]]


def sample_views(specs: Mapping[str, ViewSpec], count: int) -> Batch:
    """The views of `count` samples, from the first again where there are not as many."""
    return stack(list(islice(cycle(islice(calibration_images(specs), count)), count)))


def golden_views(specs: Mapping[str, ViewSpec], count: int) -> Batch:
    """The views of `count` images of the golden set, whole and spoiled ones from all of it."""
    everything = [image.views for image in golden_images(specs)]
    step = max(1, len(everything) // count)
    return stack(list(islice(chain(everything[::step], everything), count)))


def stack(images: Sequence[Batch]) -> Batch:
    return {name: np.stack([image[name] for image in images]) for name in images[0]}


def clip_sized_model(folder: Path) -> Model:
    """mst-clip as open_clip builds it, ViT-B/32 and ViT-B/16, with random weights: its speed is the trained one's.

    Takes half a minute, and torch and open_clip.
    """
    import torch

    from worker.model.clip.export import export_model
    from worker.model.clip.towers import Encoder, build_network

    torch.manual_seed(1)
    network = build_network(Encoder("ViT-B-32-quickgelu", None), Encoder("ViT-B-16-quickgelu", None))
    export_model(network, folder, version="random", license="none", training_data=())
    return load_model(str(folder))
