"""The backbone's description of every image, computed once: with a frozen backbone, training needs nothing else."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from worker.images.decode import decode
from worker.images.views import make_views
from worker.model.data import Example
from worker.model.network import STREAMS, VIEWS, MstLite

MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What each stream's backbone says of each image, [images, DESCRIPTION]."""

    coarse: Tensor
    fine: Tensor

    def __getitem__(self, rows: Tensor) -> "Descriptions":
        return Descriptions(self.coarse[rows], self.fine[rows])


class _Describer(nn.Module):
    def __init__(self, network: MstLite) -> None:
        super().__init__()
        self.network = network

    def forward(self, whole: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.coarse.description(whole), self.network.fine.description(detail)


def describe_images(network: MstLite, examples: Sequence[Example], progress: Progress, workers: int) -> Descriptions:
    """Runs the backbone over the examples' views, as serving decodes them, in float32 through OpenVINO, which is
    several times as fast as PyTorch on a CPU."""
    blank = [torch.zeros(1, view.crops, view.size, view.size, 3, dtype=torch.uint8) for view in VIEWS.values()]
    graph = ov.convert_model(_Describer(network.eval()), example_input=tuple(blank))
    graph.reshape({port: list(view.shape) for port, view in zip(graph.inputs, blank, strict=True)})
    options = {"NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(graph, "CPU", options)
    task = progress.add_task("describing images", total=len(examples))

    def describe(example: Example) -> list[NDArray[np.float32]]:
        pixels = decode(example.image.read_bytes(), max_pixels=MAX_PIXELS)
        views = make_views(pixels, VIEWS)
        batch = [views[name].reshape(blank_.shape) for name, blank_ in zip(VIEWS, blank, strict=True)]
        request = compiled.create_infer_request()
        request.infer(batch)
        progress.advance(task)
        return [request.get_output_tensor(index).data[0].copy() for index in range(len(STREAMS))]

    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(describe, examples))
    coarse, fine = (torch.from_numpy(np.stack([row[stream] for row in rows])) for stream in range(len(STREAMS)))
    return Descriptions(coarse, fine)
