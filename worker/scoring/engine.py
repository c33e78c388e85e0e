"""The engine protocol: turns views, and prompts if known, into features."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.view import ViewSpec

Views = Mapping[str, NDArray[np.uint8]]
"""View name → one contiguous array, [batch, *view.shape], uint8 RGB."""

Features = Mapping[str, NDArray[np.float32]]
"""Tower name → [batch, features], float32; under `PROMPT` what the prompt head made of rows with a prompt."""

Prompts = Sequence[str | None]
"""For each row the generation prompt of its image; None if unknown."""

PROMPT = "prompt"
"""The entry of Features that holds the prompt head's scores."""


class EngineError(Exception):
    """The engine failed. `infer` raises one of the two subclasses below; starting an engine may raise others."""


class BatchFailed(EngineError):
    """The engine failed on this batch. Other batches, and a retry of this one, may succeed."""


class EngineLost(EngineError):
    """The engine cannot be used in this process any more, for example after the GPU was lost. Only a new process
    helps.
    """


class Engine(Protocol):
    """Runs the towers of one model. Thread-safe."""

    @property
    def max_batch(self) -> int:
        """The maximum batch size of `infer`."""

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        """The features of a batch. Raises BatchFailed if the backend fails on it, EngineLost if it will always fail.

        `prompts` has an entry for each row; None: no row has a prompt. A model with a prompt head adds the entry
        `PROMPT`: float32 [batch, scores], in the order of the manifest's `prompt.scores`, NaN in rows without a prompt.
        Without `prompts`, or from a model without a prompt head, there is no such entry.
        """

    def close(self) -> None:
        """Frees the engine's resources. It must not be used afterwards."""


def blank_views(views: Mapping[str, ViewSpec]) -> Views:
    """A batch of one black image, to warm an engine up and to check that it answers."""
    return {name: np.zeros((1, *view.shape), np.uint8) for name, view in views.items()}


def check_batch(views: Views, specs: Mapping[str, ViewSpec], max_batch: int) -> int:
    """The number of images in a batch. Raises BatchFailed if the batch does not match the model's views."""
    if set(views) != set(specs):
        raise BatchFailed(f"got the views {sorted(views)}, the model needs {sorted(specs)}")
    for name, pixels in views.items():
        if pixels.dtype != np.uint8 or pixels.shape[1:] != specs[name].shape:
            raise BatchFailed(
                f"view {name!r} is {pixels.dtype}{list(pixels.shape)}, "
                f"the model needs uint8{['batch', *specs[name].shape]}"
            )
    batches = {len(pixels) for pixels in views.values()}
    if len(batches) != 1 or not 0 < max(batches) <= max_batch:
        raise BatchFailed(
            f"views of {sorted(batches)} images; a batch has 1 to {max_batch} images, the same number in each view"
        )
    return batches.pop()
